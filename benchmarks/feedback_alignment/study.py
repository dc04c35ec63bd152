"""The study's grid: conditions, sizes, seeds, and the rules that choose settings.

Everything here was fixed before the first run of the study; README.md gives the reasons.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command

HERE = Path(__file__).parent
TABLE = ("grpo", "refsol", "step_aligned")
FORMS = ("full_repetition", "omission", "other_attempt", "reference_phrasing", "no_answer")
WEAK = ("weak_critic_10", "weak_critic_30", "weak_critic_50")
ABLATIONS = (*FORMS, *WEAK)
BASE = "base"
PRIMARY = ("step_aligned", "refsol")
"""The comparison named in advance: paired difference of Avg@12 on the test questions."""
ALIASES = {"partial": "step_aligned", "weak_critic_0": "step_aligned"}
"""Conditions that would repeat another condition's runs number by number."""


_HERE = "benchmarks.feedback_alignment.contexts"
CONTEXTS = {
    "refsol": "ReferenceSolution",
    "full_repetition": f"{_HERE}.FullRepetition",
    "omission": f"{_HERE}.Omission",
    "other_attempt": f"{_HERE}.OtherAttempt",
    "reference_phrasing": f"{_HERE}.ReferencePhrasing",
    "no_answer": f"{_HERE}.NoAnswer",
}

SHOWN_REFERENCE = "benchmarks.feedback_alignment.shown.ShownReference"
NAMES = {path.rsplit(".", 1)[-1]: name for name, path in CONTEXTS.items()}
NAMES |= {"StepAlignedCritique": "step_aligned", "ShownCritique": "step_aligned"}
NAMES["ShownReference"] = "refsol"
"""Maps an analysis's names of contexts to conditions."""


@dataclass(frozen=True)
class Plan:
    """One solver's part of the study."""

    solver: str
    conditions: tuple[str, ...]
    rates: tuple[float, ...]
    """Learning rates, the same grid for each condition."""
    search_seeds: tuple[int, ...]
    """Disjoint from ``seeds``."""
    seeds: tuple[int, ...]
    k: int = 12
    """Answers per question in validation and test."""
    analyzed: tuple[str, ...] = ()
    """Contexts that the analysis scores beside the critique."""
    questions: int = 64
    """Questions of the analysis."""
    words: tuple[str, ...] = ()
    """Style words of the analysis; empty: the package's default."""
    options: tuple[str, ...] = ()
    """Further arguments of every command."""
    folder: Path = HERE / "results"

    @property
    def config(self) -> Path:
        """Path of the full config."""
        return HERE / f"{self.solver}.yaml"

    def condition(self, name: str) -> Path:
        """Return the overlay of a condition, specific to this solver if there is one."""
        own = HERE / "conditions" / self.solver / f"{name}.yaml"
        return own if own.exists() else HERE / "conditions" / f"{name}.yaml"

    @property
    def results(self) -> Path:
        """Folder of the raw results."""
        return self.folder / self.solver


LAB = Plan(
    "lab",
    conditions=(*TABLE, *ABLATIONS),
    rates=(1e-4, 3e-4, 1e-3, 3e-3),
    search_seeds=(101, 102),
    seeds=(1, 2, 3, 4, 5),
    analyzed=tuple(CONTEXTS[name] for name in (*FORMS, "refsol")),
    # Notations differ in these words alone; "is" replaces the equals sign.
    words=("so", "then", "now", "is"),
)
SMOLLM2 = Plan(
    "smollm2",
    conditions=TABLE,
    rates=(1e-4, 5e-4),
    search_seeds=(101,),
    seeds=(1, 2),
    k=4,
    analyzed=(SHOWN_REFERENCE,),
)
PLANS = {plan.solver: plan for plan in (LAB, SMOLLM2)}


def with_folder(plan: Plan, folder: Path) -> Plan:
    """Return the plan with its results in another folder."""
    return replace(plan, folder=folder)


def smoke(plan: Plan, folder: Path) -> Plan:
    """Return a tiny version of the grid that shows that everything runs."""
    sizes = "--data.init_args.task.init_args."
    if plan.solver == "smollm2":
        tiny: tuple[str, ...] = (f"{sizes}sizes={{train: 16, val: 2, test: 2}}",)
    else:
        tiny = (f"{sizes}train_size=64", f"{sizes}val_size=6", f"{sizes}test_size=8")
    return replace(
        plan,
        rates=plan.rates[:2],
        search_seeds=plan.search_seeds[:1],
        seeds=plan.seeds[:2],
        questions=8,
        folder=folder,
        options=(
            *("--trainer.max_steps=2", "--trainer.val_check_interval=1"),
            *tiny,
        ),
    )


def search_runs(plan: Plan, conditions: Sequence[str]) -> list[Run]:
    """List runs with validation only: one per condition, learning rate and search seed."""
    return [
        Run(name, seed, [_fit(plan, name, seed, rate)], {"lr": rate})
        for name in conditions
        for rate in plan.rates
        for seed in plan.search_seeds
    ]


def study_runs(plan: Plan, conditions: Sequence[str], rates: dict[str, float]) -> list[Run]:
    """List runs with the chosen learning rates; the test questions are read once, at the end."""
    runs = []
    for seed in plan.seeds:
        for name in conditions:
            test = [*_command(plan, name, seed, "test"), "--ckpt_path", "checkpoints/best.ckpt"]
            fit = _fit(plan, name, seed, rates[name])
            runs.append(Run(name, seed, [fit, test], {"lr": rates[name]}))
    return runs


def base_runs(plan: Plan) -> list[Run]:
    """List runs of the untrained solver: the start of each curve, and a row of the table."""
    return [
        Run(BASE, seed, [_command(plan, TABLE[0], seed, verb) for verb in ("validate", "test")])
        for seed in plan.seeds
    ]


def analysis_runs(plan: Plan) -> list[Run]:
    """List analyses of the untrained solver's rollouts: all forms, and each weak critic."""
    others = [f"--contexts+={path}" for path in plan.analyzed]
    weak = [(name, []) for name in WEAK if name in plan.conditions]
    return [
        Run(name, plan.seeds[0], [_analyze(plan, name, further)])
        for name, further in [("step_aligned", others), *weak]
    ]


def _analyze(plan: Plan, name: str, further: Sequence[str]) -> list[str]:
    command = _command(plan, name, plan.seeds[0], "analyze")
    words = [f"--words=[{','.join(plan.words)}]"] if plan.words else []
    sizes = [f"--questions={plan.questions}", "--samples=4", "--out=analysis"]
    return [*command, *further, *words, *sizes]


def choose_rates(rows: Sequence[Row], conditions: Sequence[str]) -> dict[str, float]:
    """Choose the learning rate with the best mean validation; a tie goes to the smaller rate.

    Args:
        rows: Rows of the search.
        conditions: Conditions to choose for.
    """
    chosen = {}
    for name in conditions:
        means = {
            rate: statistics.mean(r["val"] for r in rows if (r["name"], r["lr"]) == (name, rate))
            for rate in sorted({r["lr"] for r in rows if r["name"] == name})
        }
        chosen[name] = max(means, key=lambda rate: (means[rate], -rate))
    return chosen


def collect(run: Run, folder: Path) -> Row:
    """Read a run's curve, its best validation and its test answers per question."""
    curve = _lines(folder / "curve.jsonl")
    answers = folder / "answers.jsonl"
    best = max(curve, key=lambda point: (_val(point), -point["step"]))
    row: Row = {"val": _val(best), "step": best["step"], "curve": curve}
    if answers.exists():
        row["test"] = _lines(answers)
    return row


def collect_analysis(run: Run, folder: Path) -> Row:
    """Read the summary of an analysis."""
    return {"summary": json.loads((folder / "analysis" / "summary.json").read_text())}


def _val(point: Row) -> float:
    return next(float(value) for name, value in point.items() if name.startswith("val/avg@"))


def _lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _fit(plan: Plan, name: str, seed: int, rate: float) -> list[str]:
    return [*_command(plan, name, seed, "fit"), f"--model.init_args.optimizer.init_args.lr={rate}"]


def _command(plan: Plan, name: str, seed: int, verb: str) -> list[str]:
    configs = [plan.config, plan.condition(name)]
    options = [f"--seed_everything={seed}", f"--data.init_args.seed={seed}", *plan.options]
    return fit_command(configs, *options, verb=verb)
