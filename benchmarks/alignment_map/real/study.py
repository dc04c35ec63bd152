"""The cells on the real model: admission, then conditions and seeds. PROTOCOL.md gives the reasons.

    python -m benchmarks.alignment_map.real.study --part admission
    python -m benchmarks.alignment_map.real.study --part main
    python -m benchmarks.alignment_map.real.report

An interrupted part continues where it stopped. ``warm_up.py`` makes the base.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command, run_grid

HERE = Path(__file__).parent
RESULTS = HERE / "results"
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
"""Contexts of the admission test."""


def admission_runs(base: Path) -> list[Run]:
    """List the admission tests: the base under each context."""
    size = (f"--questions={QUESTIONS}", f"--samples={ATTEMPTS}")
    options = ("--admission=true", "--out=probe.json", *size)
    return [Run(name, 1, [_command("probe", base, name, 1, *options)]) for name in READ]


def main_runs(base: Path) -> list[Run]:
    """List the counted runs, seed by seed; the untrained base answers first."""
    runs = []
    for seed in SEEDS:
        runs.append(Run(UNTRAINED, seed, [_command("validate", base, "critique", seed)]))
        for name in CONDITIONS:
            command = _command("fit", base, name, seed, _rate(RATE))
            runs.append(Run(name, seed, [command], {"lr": RATE}))
    return runs


def collect(run: Run, folder: Path) -> Row:
    """Read a run's curve, or its probe."""
    row: Row = {}
    curve, probe = folder / "curve.jsonl", folder / "probe.json"
    if curve.exists():
        row["curve"] = [json.loads(line) for line in curve.read_text().splitlines()]
    if probe.exists():
        row["probe"] = json.loads(probe.read_text())["estimates"]
    return row


def _rate(rate: float) -> str:
    return f"--model.init_args.optimizer.init_args.lr={rate}"


def _command(verb: str, base: Path, name: str, seed: int, *options: str) -> list[str]:
    # Training seeds change the sampling and the order of the questions, not the questions.
    words = (
        f"--model.init_args.model.init_args.name={base}",
        f"--seed_everything={seed}",
        f"--data.init_args.seed={seed}",
    )
    return fit_command([HERE / "lab.yaml"], *words, *CONDITIONS[name], *options, verb=verb)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("admission", "main"), default="admission")
    parser.add_argument("--base", type=Path, default=Path("out/real/base"))
    parser.add_argument("--scratch", type=Path, default=Path("out/real/runs"))
    args = parser.parse_args()
    base = args.base.resolve()
    list_runs = {"admission": admission_runs, "main": main_runs}[args.part]
    RESULTS.mkdir(exist_ok=True)
    scratch = args.scratch.resolve() / args.part
    run_grid(list_runs(base), collect, RESULTS / f"{args.part}.jsonl", scratch, jobs=1)


if __name__ == "__main__":
    main()
