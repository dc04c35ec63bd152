"""The grid of the continual study: train on the dialect, then test both tasks."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.grid import Row, Run, fit_command
from benchmarks.methods.lab import HERE, SHARED

STEPS = 80
RATES = (3e-4, 1e-3)
BASE = "untrained"
OWN_WORDS = "--data.init_args.task.init_args.own_words=true"
METHODS: dict[str, tuple[str | Path, tuple[str, ...]]] = {
    "SDFT": ("sdft", ()),
    "SFT": (HERE / "sft.yaml", ()),
    "SFT, own words": (HERE / "sft.yaml", (OWN_WORDS,)),
}
"""Overlay over configs/quickstart.yaml, and further options."""


def continual_runs(
    seeds: Sequence[int], rates: Sequence[float] = RATES, steps: int = STEPS
) -> list[Run]:
    """List every method with every learning rate: the whole trade-off, not one point."""
    runs = []
    for seed in seeds:
        runs.append(Run(BASE, seed, [_answer("package:lightning_sd/lab/solver", seed)]))
        for rate in rates:
            for name, (overlay, further) in METHODS.items():
                options = (
                    f"--seed_everything={seed}",
                    f"--data.init_args.seed={seed}",
                    f"--trainer.max_steps={steps}",
                    f"--model.init_args.optimizer.init_args.lr={rate}",
                    *further,
                )
                configs = ["quickstart", overlay, SHARED, HERE / "continual.yaml"]
                command = [*_answer("out/hf", seed), "--", *fit_command(configs, *options)]
                runs.append(Run(name, seed, [command], {"lr": rate, "steps": steps}))
    return runs


def _answer(model: str, seed: int) -> list[str]:
    words = ("-m", "benchmarks.methods.answer", "--model", model, "--seed", str(seed))
    return [*words, "--out", "out/answers.json"]


def collect(run: Run, folder: Path) -> Row:
    """Read the student's answers to both tasks."""
    found: Row = json.loads((folder / "out/answers.json").read_text(encoding="utf-8"))
    return found


def choose_rates(rows: Sequence[Row]) -> dict[str, float]:
    """Choose each method's learning rate by its mean validation Avg over seeds.

    A tie goes to the smaller rate.
    """
    chosen = {}
    for name in METHODS:
        found: dict[float, list[float]] = {}
        for row in rows:
            if row["name"] == name:
                found.setdefault(row["lr"], []).append(row["val"])
        if found:
            chosen[name] = max(found, key=lambda rate: (statistics.mean(found[rate]), -rate))
    return chosen
