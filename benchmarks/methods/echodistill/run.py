"""EchoDistill against its parts: noisy digits, the frozen teacher hears them clean.

    python -m benchmarks.methods.echodistill.prepare    # once, teaches the model
    python -m benchmarks.methods.echodistill.run --seeds 1 2 3

Each run is ``fit`` with configs/echodistill.yaml and what the method changes, then ``test`` of the
trained student on the same test questions without noise. ``results.jsonl`` holds every run;
``results.md`` the table. It goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from benchmarks.grid import Run, fit_command, run_grid
from benchmarks.intervals import interval
from benchmarks.methods.echodistill.prepare import FOLDER

HERE = Path(__file__).parent
OBJECTIVE = "--model.init_args.objective.init_args"
METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "GRPO": (("echodistill", "grpo"), ()),
    "distillation alone": (
        ("echodistill",),
        (f"{OBJECTIVE}.policy=0", "--model.init_args.samples=1"),
    ),
    "EchoDistill": (("echodistill",), ()),
    "EchoDistill, bounded": (("echodistill",), (f"{OBJECTIVE}.dual_clip=3",)),
    "on policy": (("echodistill", "echodistill_onpolicy"), ()),
}
"""Configs and further options. Distillation alone samples nothing but what the step asks for."""


def grid(methods: list[str], seeds: list[int], steps: int, model: Path) -> list[Run]:
    """A run for each method and seed."""
    runs = []
    for name in methods:
        configs, options = METHODS[name]
        for seed in seeds:
            common = (
                f"--seed_everything={seed}",
                f"--model.init_args.model.init_args.name={model.resolve()}",
            )
            fit = (
                f"--trainer.max_steps={steps}",
                f"--data.init_args.seed={seed}",
                "--trainer.limit_val_batches=0",
            )
            clean = (
                "--data.init_args.task.init_args.clean=true",
                "--ckpt_path=out/echodistill/checkpoints/last.ckpt",
            )
            commands = [
                fit_command(configs, *options, *common, *fit),
                fit_command(configs, *options, *common, *clean, verb="test"),
            ]
            runs.append(Run(name, seed, commands, {"steps": steps}))
    return runs


def collect(run: Run, folder: Path) -> dict[str, Any]:
    """Accuracy in noise before and after, a question; and without noise, after."""
    found = json.loads((folder / "out/echodistill/before_after.json").read_text())
    clean = 0.0
    for path in (folder / "out/echodistill").glob("lightning_logs/*/metrics.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                clean = float(row.get("test/avg@4") or clean)
    after = [question["avg"] for question in found["questions"]["after"]]
    return {"before": found["before"], "after": found["after"], "clean": clean, "questions": after}


def table(rows: list[dict[str, Any]], methods: list[str]) -> str:
    """Markdown: means over seeds and questions with 95% bootstrap intervals."""
    lines = [
        "| method | seeds | accuracy in noise | before | without noise | length | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in methods:
        own = [row for row in rows if row["name"] == name]
        mean = {
            "before": sum(row["before"]["avg@4"] for row in own) / len(own),
            "clean": sum(row["clean"] for row in own) / len(own),
            "length": sum(row["after"]["length"] for row in own) / len(own),
            "minutes": sum(row["minutes"] for row in own) / len(own),
        }
        noisy = interval([row["questions"] for row in own])
        lines.append(
            f"| {name} | {len(own)} | {noisy.text()} | {100 * mean['before']:.1f} "
            f"| {100 * mean['clean']:.1f} | {mean['length']:.1f} | {mean['minutes']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--scratch", type=Path, default=Path("out/echodistill/study"))
    args = parser.parse_args()
    runs = grid(args.methods, args.seeds, args.steps, args.model)
    rows = run_grid(runs, collect, args.results, args.scratch, jobs=args.jobs)
    found = table(rows, args.methods)
    print(found)
    args.results.with_suffix(".md").write_text(found + "\n")


if __name__ == "__main__":
    main()
