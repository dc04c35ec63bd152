"""The cells on the real model: admission, then conditions and seeds. PROTOCOL.md gives the reasons.

    python -m benchmarks.alignment_map.real.study --part admission
    python -m benchmarks.alignment_map.real.study --part main
    python -m benchmarks.alignment_map.real.study --part grpo
    python -m benchmarks.alignment_map.real.study --model gemma --part admission
    python -m benchmarks.alignment_map.real.report

An interrupted part continues where it stopped. ``warm_up.py`` makes the bases.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command, run_grid

HERE = Path(__file__).parent
RESULTS = HERE / "results"
MODELS = {
    "smollm2": (Path("out/real/base"), RESULTS),
    "gemma": (Path("out/real/gemma"), RESULTS / "gemma"),
}
"""The base of each model, and the folder of its rows."""
SEEDS = (1, 2)
UNTRAINED = "untrained"
RATE = 1e-3
"""Learning rate of all conditions."""
QUESTIONS, ATTEMPTS = 16, 2
"""Size of the admission test."""

CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "critique": ("--teacher_context=StepAlignedCritique",),
    "other_order": ("--teacher_context=benchmarks.alignment_map.real.task.OtherOrder",),
    "grpo": (
        "--teacher_context=NoContext",
        "--model.init_args.objective=PolicyGradient",
        "--model.init_args.objective.init_args.scale=std",
    ),
}
READ = ("critique", "other_order")
"""Conditions of the primary comparison, which the admission test probes."""


def admission_runs(base: Path) -> list[Run]:
    """List the admission tests: the base under each context."""
    size = (f"--questions={QUESTIONS}", f"--samples={ATTEMPTS}")
    options = ("--admission=true", "--out=probe.json", *size)
    return [Run(name, 1, [_command("probe", base, name, 1, *options)]) for name in READ]


def main_runs(base: Path) -> list[Run]:
    """List the runs of the primary comparison, seed by seed; the untrained base answers first."""
    runs = []
    for seed in SEEDS:
        runs.append(Run(UNTRAINED, seed, [_command("validate", base, "critique", seed)]))
        runs += [_fit(base, name, seed) for name in READ]
    return runs


def grpo_runs(base: Path) -> list[Run]:
    """List the runs of GRPO."""
    return [_fit(base, "grpo", seed) for seed in SEEDS]


def collect(run: Run, folder: Path) -> Row:
    """Read a run's curve, or its probe."""
    row: Row = {}
    curve, probe = folder / "curve.jsonl", folder / "probe.json"
    if curve.exists():
        row["curve"] = [json.loads(line) for line in curve.read_text().splitlines()]
    if probe.exists():
        row["probe"] = json.loads(probe.read_text())["estimates"]
    return row


def _fit(base: Path, name: str, seed: int) -> Run:
    rate = f"--model.init_args.optimizer.init_args.lr={RATE}"
    return Run(name, seed, [_command("fit", base, name, seed, rate)], {"lr": RATE})


def _command(verb: str, base: Path, name: str, seed: int, *options: str) -> list[str]:
    # Training seeds change the sampling and the order of the questions, not the questions.
    words = (
        f"--model.init_args.model.init_args.name={base}",
        f"--seed_everything={seed}",
        f"--data.init_args.seed={seed}",
    )
    return fit_command([HERE / "lab.yaml"], *words, *CONDITIONS[name], *options, verb=verb)


PARTS = {"admission": admission_runs, "main": main_runs, "grpo": grpo_runs}
FILES = {"admission": "admission.jsonl", "main": "main.jsonl", "grpo": "main.jsonl"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS, default="admission")
    parser.add_argument("--model", choices=MODELS, default="smollm2")
    parser.add_argument("--base", type=Path, help="default: the model's base in out/real")
    parser.add_argument("--scratch", type=Path, default=Path("out/real/runs"))
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, one thread each")
    args = parser.parse_args()
    default, results = MODELS[args.model]
    base = (args.base or default).resolve()
    runs, file = PARTS[args.part](base), FILES[args.part]
    results.mkdir(parents=True, exist_ok=True)
    scratch = args.scratch.resolve() / args.model / args.part
    run_grid(runs, collect, results / file, scratch, jobs=args.jobs)


if __name__ == "__main__":
    main()
