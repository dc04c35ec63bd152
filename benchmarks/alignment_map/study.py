"""The grid of the alignment map: bases, conditions, and the order in which cells are run.

PROTOCOL.md gives the reasons.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.alignment_map.teach import Recipe, make_branch, make_lesson
from benchmarks.feedback_alignment.rows import build_curve, mean_along
from benchmarks.grid import Row, Run, fit_command

Cell = tuple[str, str]
"""Base and condition."""

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RATES = (1e-4, 3e-4, 1e-3)
SEARCH_SEEDS = (101,)
SEEDS = (1, 2, 3)
MORE_SEEDS = (4, 5)
"""Further training seeds, on three bases of pre-training seed 1."""
SEARCH_BASES = {
    "q0.1-0": ("q0", "q0.1", "q0.5"),
    "lesson-0": ("lesson",),
    "recovery-1": ("recovery", "recovery1.6", "recovery2.5"),
    "equal-1": ("equal",),
}
"""Bases on which learning rates are chosen, and the kinds of bases that take them."""
FINAL = "checkpoints/final.ckpt"
"""The student after its last step, in a run's folder."""

TRUNKS = {
    "trunk-0": Recipe(seed=0),
    "reader-0": make_lesson(0, "lookup_lesson"),
    "trunk-1": Recipe(seed=1),
    "recovery_reader-1": make_lesson(1, "recovery_lesson"),
    "equal_reader-1": make_lesson(1, "equal_lesson"),
}
"""What bases go on from: a trunk, and a trunk after a lesson in reading its context."""
BASES = {
    "q0-0": make_branch(0, seed=0),
    "q0.1-0": make_branch(0.1, seed=0),
    "q0.5-0": make_branch(0.5, seed=0),
    "lesson-0": make_branch(0.5, seed=0),
    "q0-1": make_branch(0, seed=1),
    "recovery-1": make_branch(0.5, seed=1, mix="recovery"),
    "recovery1.6-1": make_branch(0.5, seed=1, error_scale=1.6, mix="recovery"),
    "recovery2.5-1": make_branch(0.5, seed=1, error_scale=2.5, mix="recovery"),
    "equal-1": make_branch(0.5, seed=1, mix="equal"),
}
"""Bases by name: their kind and their pre-training seed. Numbers after ``q`` are the share of
prefixes in another order, those after ``recovery`` the scale of the solver's errors."""
STARTS = {"lesson": "reader", "recovery": "recovery_reader", "equal": "equal_reader"}
"""What the bases go on from whose names begin so; the others go on from the trunk."""
_CONTEXT = "--teacher_context=benchmarks.alignment_map.contexts."
_OBJECTIVE = "--model.init_args.objective"
_EIGHT_ATTEMPTS = ("--model.init_args.samples=8", "--data.init_args.batch_size=8")
_CRITIQUE = ("--teacher_context=StepAlignedCritique",)
_MASK = "benchmarks.alignment_map.masks."
UNTRAINED = "untrained"
MAIN: Mapping[str, tuple[str, ...]] = {
    "critique": _CRITIQUE,
    "same_order": (f"{_CONTEXT}SameOrder",),
    "random_order": (f"{_CONTEXT}RandomOrder",),
    "fixed_order": (f"{_CONTEXT}FixedOrder",),
    "coarse_random_order": (f"{_CONTEXT}CoarseRandomOrder",),
    "grpo": (
        "--teacher_context=NoContext",
        f"{_OBJECTIVE}=PolicyGradient",
        f"{_OBJECTIVE}.init_args.scale=std",
        *_EIGHT_ATTEMPTS,
    ),
}
FURTHER: Mapping[str, tuple[str, ...]] = {
    "coarse_same_order": (f"{_CONTEXT}CoarseSameOrder",),
    "rewritten_critique": (f"{_CONTEXT}RewrittenCritique",),
    "wrong_critique": (f"{_CONTEXT}WrongCritique",),
    "other_attempt": ("--teacher_context=benchmarks.feedback_alignment.contexts.OtherAttempt",),
    "sibling": ("--teacher_context=SiblingDemonstration", *_EIGHT_ATTEMPTS),
}
FORM: Mapping[str, tuple[str, ...]] = {
    name: (
        *_CRITIQUE,
        f"{_OBJECTIVE}.init_args.token_weights="
        + json.dumps([{"class_path": f"{_MASK}WithoutForm", "init_args": {"order": order}}]),
    )
    for name, order in (("critique_without_notation", False), ("critique_without_form", True))
}
HEADING: Mapping[str, tuple[str, ...]] = {
    "critique_as_reference": (f"{_CONTEXT}CritiqueAsReference",),
}
MASKS = {
    "from_error": {"class_path": f"{_MASK}FirstErrorMask", "init_args": {"side": "from"}},
    "before_error": {"class_path": f"{_MASK}FirstErrorMask", "init_args": {"side": "before"}},
    "positive": {
        "class_path": "lightning_sd.objectives.AdvantageSign",
        "init_args": {"sign": "positive"},
    },
    "negative": {
        "class_path": "lightning_sd.objectives.AdvantageSign",
        "init_args": {"sign": "negative"},
    },
}
MASKED: Mapping[str, tuple[str, ...]] = {
    f"{name}/{mask}": (
        *MAIN[name],
        f"{_OBJECTIVE}.init_args.token_weights={json.dumps([value])}",
    )
    for name in ("critique", "random_order")
    for mask, value in MASKS.items()
}
UNMASKED = (*MAIN, *FURTHER, *FORM, *HEADING)
VARIANTS = {
    "coarse_same_order": "coarse_random_order",
    "rewritten_critique": "critique",
    "wrong_critique": "critique",
    "other_attempt": "critique",
    "sibling": "critique",
    "critique_without_notation": "same_order",
    "critique_without_form": "same_order",
    "critique_as_reference": "same_order",
}
"""Main conditions whose learning rates the further ones take."""
CONDITIONS: Mapping[str, tuple[str, ...]] = {**MAIN, **MASKED, **FURTHER, **FORM, **HEADING}


@dataclass(frozen=True)
class Part:
    """Cells that run together."""

    conditions: Sequence[str]
    bases: Sequence[str]
    seeds: Sequence[int] = SEEDS


# Conditions of the parts that turn one knob of the base.
_KNOB = ("critique", "same_order", "random_order", "grpo")
_MAP_BASES = ("q0-0", "q0.1-0", "q0.5-0", "lesson-0", "q0-1", "recovery-1")
PARTS = {
    "main": Part(tuple(MAIN), _MAP_BASES),
    "form": Part(tuple(FORM), ("recovery-1",)),
    "heading": Part(tuple(HEADING), ("recovery-1",)),
    "masked": Part(tuple(MASKED), ("lesson-0", "recovery-1")),
    "further": Part(tuple(FURTHER), ("recovery-1",)),
    # The knob of initial accuracy.
    "scaled": Part(_KNOB, ("recovery1.6-1", "recovery2.5-1")),
    # Critiques that are read as references are.
    "equal": Part(_KNOB, ("equal-1",)),
    "more_seeds": Part(_KNOB, ("q0-1", "recovery-1", "equal-1"), MORE_SEEDS),
}
ADMITTED_UNDER = ("critique", "random_order", "same_order", "coarse_random_order")
"""Contexts of the admission test; the competence is that of ``random_order``."""
READ = ("critique", "random_order")
"""Contexts under which an unrelated text must not help."""


def base_folder(scratch: Path, base: str) -> Path:
    """Return the folder of a pre-trained base."""
    return scratch / "bases" / base


def find_start(name: str) -> str | None:
    """Return what a base or a reader goes on from; None for a trunk."""
    if name.startswith("trunk"):
        return None
    starts = (start for kind, start in STARTS.items() if name in BASES and name.startswith(kind))
    return f"{next(starts, 'trunk')}-{(TRUNKS | BASES)[name].seed}"


def teach_run(base: str, scratch: Path) -> Run:
    """Return the run that pre-trains a trunk or a base into its folder."""
    recipe = (TRUNKS | BASES)[base]
    command = ["-m", "benchmarks.alignment_map.teach", f"--seed={recipe.seed}"]
    start = find_start(base)
    if start is not None:
        command += [f"--trunk={base_folder(scratch, start)}", f"--mix={recipe.mix}"]
        command += [f"--foreign={recipe.foreign:g}", f"--error-scale={recipe.error_scale:g}"]
    command.append(f"--out={base_folder(scratch, base)}")
    return Run("teach", recipe.seed, [command], {"base": base})


def admission_runs(bases: Sequence[str], scratch: Path) -> list[Run]:
    """List the admission tests: each base under each context."""
    runs = []
    for base in bases:
        for name in ADMITTED_UNDER:
            options = ("--admission=true", "--out=probe.json")
            command = _command("probe", scratch, base, name, 1, None, *options)
            runs.append(Run(name, 1, [command], {"base": base}))
    return runs


def find_searched(bases: Sequence[str]) -> list[str]:
    """Return the bases on which the learning rates of some bases are chosen."""
    kinds = {base.rsplit("-", 1)[0] for base in bases}
    return [searched for searched, taken in SEARCH_BASES.items() if kinds & set(taken)]


def search_runs(conditions: Sequence[str], bases: Sequence[str], scratch: Path) -> list[Run]:
    """List the runs that choose learning rates; they never read the test questions.

    Args:
        conditions: Those that will be trained.
        bases: Those that they will be trained on.
        scratch: Parent of the bases.
    """
    needed = {_find_varied(name) for name in conditions}
    return [
        Run(
            name,
            seed,
            [_command("fit", scratch, base, name, seed, rate)],
            {"base": base, "lr": rate},
        )
        for base in find_searched(bases)
        for name in MAIN
        if name in needed
        for rate in RATES
        for seed in SEARCH_SEEDS
    ]


def study_runs(
    part: Part, bases: Sequence[str], rates: Mapping[Cell, float], scratch: Path
) -> list[Run]:
    """List a part's counted runs on some bases: seed by seed, within a seed base by base."""
    runs = []
    for seed in part.seeds:
        for base in bases:
            for name in part.conditions:
                rate = rates[base, name]
                fit = _command("fit", scratch, base, name, seed, rate)
                test = _command("test", scratch, base, name, seed, None, f"--ckpt_path={FINAL}")
                runs.append(Run(name, seed, [fit, test], {"base": base, "lr": rate}))
    return runs


def untrained_runs(bases: Sequence[str], seeds: Sequence[int], scratch: Path) -> list[Run]:
    """List validation and test of the untrained bases: the start of each curve."""
    return [
        Run(
            UNTRAINED,
            seed,
            [
                _command(verb, scratch, base, "critique", seed, None)
                for verb in ("validate", "test")
            ],
            {"base": base},
        )
        for seed in seeds
        for base in bases
    ]


def select_admitted(rows: Sequence[Row]) -> list[str]:
    """Return the bases that are no better under unrelated contexts than alone.

    Raises:
        ValueError: No base has passed.
    """
    failed, tested = set(), set()
    for row in rows:
        if row["name"] in READ:
            tested.add(row["base"])
            if row["probe"]["unrelated_gain"]["low"] > 0:
                failed.add(row["base"])
    admitted = [base for base in BASES if base in tested - failed]
    if not admitted:
        raise ValueError(
            f"{RESULTS / 'admission.jsonl'}: no base has passed; run --part admission first."
        )
    return admitted


def choose_rates(rows: Sequence[Row], starts: Mapping[str, Row]) -> dict[Cell, float]:
    """Choose the rate with the highest mean area of each cell; the smaller one on a tie.

    Masked and further conditions take the rate of the condition that they vary.

    Args:
        rows: Rows of the search.
        starts: Untrained rows by base.
    """
    areas: dict[Cell, dict[float, list[float]]] = {}
    for row in rows:
        found = areas.setdefault((row["base"], row["name"]), {}).setdefault(row["lr"], [])
        found.append(measure_area(row, starts[row["base"]]))
    chosen = {}
    for (searched, name), by_rate in areas.items():
        best = max(by_rate, key=lambda rate: (statistics.mean(by_rate[rate]), -rate))
        varied = [n for n in CONDITIONS if _find_varied(n) == name]
        for base in BASES:
            if base.rsplit("-", 1)[0] in SEARCH_BASES[searched]:
                chosen |= dict.fromkeys(((base, n) for n in varied), best)
    return chosen


def _find_varied(name: str) -> str:
    """Return the main condition whose learning rate a condition takes."""
    # A masked condition is named after the one that it masks.
    return VARIANTS.get(name, name.split("/")[0])


def measure_area(row: Row, start: Row) -> float:
    """Return a run's mean validation accuracy over its rollouts, from the untrained base on."""
    return mean_along(build_curve(row, start, "rollouts"))


def collect(run: Run, folder: Path) -> Row:
    """Read a run's curve, and its test answers or its probe."""
    row: Row = {}
    for name, file in (("curve", "curve.jsonl"), ("test", "answers.jsonl")):
        path = folder / file
        if path.exists():
            row[name] = [json.loads(line) for line in path.read_text().splitlines()]
    probe = folder / "probe.json"
    if probe.exists():
        row["probe"] = json.loads(probe.read_text())["estimates"]
    return row


def _command(
    verb: str, scratch: Path, base: str, name: str, seed: int, rate: float | None, *options: str
) -> list[str]:
    words = [
        f"--model.init_args.model.init_args.name={base_folder(scratch, base)}",
        f"--seed_everything={seed}",
        f"--data.init_args.seed={seed}",
        *CONDITIONS[name],
        *options,
    ]
    if rate is not None:
        words.append(f"--model.init_args.optimizer.init_args.lr={rate}")
    return fit_command([HERE / "lab.yaml"], *words, verb=verb)
