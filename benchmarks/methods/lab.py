"""The grids of runs on the lab task and on its rare-success variant, and the columns of a run."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command

HERE = Path(__file__).parent
SHARED = HERE / "lab.yaml"
STEPS = 40
"""Optimizer steps of the lab's runs."""
QUESTIONS = 16
"""Questions per step there."""
BATCH = f"--data.init_args.batch_size={QUESTIONS}"
NO_CLIP = "--model.init_args.objective.init_args.element_clip=1.0e+9"
# A number too large to act: the command line accepts no null here.
METHODS: dict[str, tuple[str, ...]] = {
    "StepAlignFB": (),
    "RefSol": ("reference",),
    "OPSD": ("opsd",),
    "OPSD, no clip": ("opsd", NO_CLIP),
    "OPSD + contrast": ("opsd_contrast",),
    "OPSD + contrast, no clip": ("opsd_contrast", NO_CLIP),
    "SDFT": ("sdft",),
    "SDPO": ("sdpo",),
    "SDPO, feedback": ("sdpo_feedback",),
    "SRPO": ("srpo",),
    "RLSD": ("rlsd",),
    "RLSD + contrast": ("rlsd_contrast",),
    "RLCSD": ("rlcsd",),
    "RLCSD, reference hints": ("rlcsd_reference",),
    "GRPO": ("grpo",),
    "Dr. GRPO": ("dr_grpo",),
    "DAPO": ("dapo",),
}
"""Each method's overlay over configs/quickstart.yaml, and options."""
RATE = "--model.init_args.optimizer.init_args.lr=3e-4"
RARE_STEPS = 100
"""25 batches of 32 questions, each visited 4 times; the config trains for 200."""
RARE: dict[str, tuple[str, ...]] = {"RESD": ("resd",), "SDPO": ("resd", "resd_sdpo")}


def lab_runs(methods: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """List the runs of every method, with the same questions and learning rate per seed."""
    return [
        Run(
            name, seed, [_fit(("quickstart", *METHODS[name]), seed, STEPS, BATCH)], {"steps": STEPS}
        )
        for seed in seeds
        for name in methods
    ]


def rare_runs(seeds: Sequence[int], steps: int = RARE_STEPS) -> list[Run]:
    """List the runs of RESD and its baseline, one rollout per question."""
    return [
        Run(name, seed, [_fit(configs, seed, steps)], {"steps": steps})
        for seed in seeds
        for name, configs in RARE.items()
    ]


def _fit(configs: Sequence[str], seed: int, steps: int, *further: str) -> list[str]:
    further = (*further, *(word for word in configs if word.startswith("--")))
    configs = [word for word in configs if not word.startswith("--")]
    options = (f"--trainer.max_steps={steps}", f"--data.init_args.seed={seed}", RATE, *further)
    return fit_command([*configs, SHARED], f"--seed_everything={seed}", *options)


def collect(run: Run, folder: Path) -> Row:
    """Read the answers before and after training per question, and the means of the log."""
    answers = read_before_after(folder / "out/before_after.json")
    return {**answers, **read_log(folder / "out/log/metrics.csv")}


def read_before_after(path: Path) -> Row:
    """Read the file that ``BeforeAfter`` wrote, with questions as columns."""
    found = json.loads(path.read_text(encoding="utf-8"))
    questions = {when: columns(rows) for when, rows in found["questions"].items()}
    return {**found, "questions": questions}


def columns(rows: Sequence[Row]) -> Row:
    """Turn rows of questions into one list per column, sorted by id to align seeds."""
    ordered = sorted(rows, key=lambda row: str(row["id"]))
    return {name: [_short(row[name]) for row in ordered] for name in ordered[0]}


def _short(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value


def read_log(path: Path) -> Row:
    """Return the mean of each logged value over the steps, and reward and length per step.

    Args:
        path: A ``metrics.csv`` with one line per optimizer step.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    logged = {
        name.removeprefix("train/"): [float(line[name]) for line in lines if line[name]]
        for name in lines[0]
        if name.startswith("train/")
    }
    means = {name: statistics.mean(values) for name, values in logged.items() if values}
    curves = {name: logged[name] for name in ("reward", "length") if name in logged}
    return {"train": means, "curves": curves}
