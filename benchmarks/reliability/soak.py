"""Train a tiny model for thousands of steps, and write its memory and speed per hundred steps.

    python -m benchmarks.reliability.soak --steps 2000 --out benchmarks/reliability/soak.md

A step samples, judges, asks a critic through the cache, scores student and EMA teacher, and updates
both. Every hundred steps there are a validation and a checkpoint. The model has one layer, so what
grows is not hidden by its weights.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from benchmarks.reliability.killed import write_tiny_model
from lightning_sd import (
    ArithmeticTask,
    CritiqueDataModule,
    EMATeacher,
    ExactResume,
    PretrainedModel,
    RuleCritic,
    SelfDistillModule,
    StepAlignedCritique,
    TransformersSampler,
)
from lightning_sd.cli.trainer import Trainer

EVERY = 100


@dataclass(frozen=True)
class Row:
    """What was measured at one step."""

    step: int
    memory: float
    """Resident memory in MiB."""
    files: int
    """Open files."""
    processor: float
    """Milliseconds of processor time per step since the row before, validation included."""


class Meter(pl.Callback):
    """Measures the process every hundred steps."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._step, self._time = 0, 0.0

    def on_train_start(self, *_: Any) -> None:
        self._time = time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % EVERY or step == self._step:
            return
        spent = time.process_time() - self._time
        gc.collect()
        files = len(os.listdir("/proc/self/fd"))
        self.rows.append(Row(step, read_memory(), files, 1000 * spent / (step - self._step)))
        self._step, self._time = step, time.process_time()


def read_memory() -> float:
    """Return the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def soak(steps: int, folder: Path) -> list[Row]:
    """Train for a number of steps; return one row per hundred."""
    torch.manual_seed(1)
    meter = Meter()
    module = SelfDistillModule(
        PretrainedModel(write_tiny_model(folder / "model")),
        teacher=EMATeacher(0.05),
        sampler=TransformersSampler(max_new_tokens=16),
        samples=2,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        max_silent_steps=0,  # never stops
        seed=1,
    )
    data = CritiqueDataModule(
        ArithmeticTask(train_size=400, val_size=16, test_size=2),
        RuleCritic(),
        cache_dir=str(folder / "critiques"),
        batch_size=4,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        val_check_interval=EVERY,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        logger=CSVLogger(folder, flush_logs_every_n_steps=10),
        callbacks=[
            StepAlignedCritique(),
            ExactResume(),
            ModelCheckpoint(folder / "checkpoints", save_last=True, every_n_train_steps=EVERY),
            meter,
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return meter.rows


def write_report(rows: Sequence[Row], steps: int) -> str:
    first, last = rows[min(1, len(rows) - 1)], rows[-1]
    growth = (last.memory - first.memory) / max(last.step - first.step, 1) * 1000
    half = max(len(rows) // 2, 1)
    early, late = (sum(r.processor for r in p) / len(p) for p in (rows[:half], rows[-half:]))
    return "\n".join(
        [
            "# Soak",
            "",
            f"`python -m benchmarks.reliability.soak --steps {steps}`, on one thread of a shared",
            f"machine ({read_processor()}); torch {torch.__version__}, Python",
            f"{platform.python_version()}. The script says what a step does.",
            "",
            f"**From step {first.step:,} to step {last.step:,} memory goes from {first.memory:.0f}",
            f"to {last.memory:.0f} MiB, {growth:+.1f} MiB per 1,000 steps. The first half takes",
            f"{early:.0f} ms of processor time per step, the second {late:.0f} ms.**",
            "",
            "| step | resident memory, MiB | open files | processor time per step, ms |",
            "|---|---|---|---|",
            *(f"| {r.step} | {r.memory:.1f} | {r.files} | {r.processor:.1f} |" for r in rows),
            "",
        ]
    )


def read_processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="file for the report, such as soak.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = write_report(soak(options.steps, Path(folder)), options.steps)
    print(report)
    if options.out is not None:
        options.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
