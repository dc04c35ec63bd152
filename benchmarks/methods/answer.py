"""Run one cell of the continual study: an optional training, then answers to both tasks.

    python -m benchmarks.methods.answer --model out/hf --seed 1 --out out/answers.json -- fit ...

The words after ``--`` are arguments of ``python -m lightning_sd``, run in the same process to save
time. The output holds answers to 64 test questions of the first task, of the second task, and of
the second task without its marker but judged by its rules (is the dialect used where it should not
be?), and Avg@12 on the second task's validation questions, which selects the learning rate.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lightning.pytorch import Trainer, seed_everything

from benchmarks.grid import Row
from benchmarks.methods.dialect import DialectTask
from benchmarks.methods.lab import columns
from lightning_sd import (
    AnswerRows,
    ArithmeticTask,
    CritiqueDataModule,
    SelfDistillModule,
    TransformersSampler,
)
from lightning_sd.cli.main import main as command_line

K = 12
QUESTIONS = 64


def answer(model: str, folder: Path) -> Row:
    """Sample K answers to each question of both tasks.

    Args:
        model: A folder in transformers' format, or a source as ``PretrainedModel`` takes it.
        folder: Folder for intermediate rows.
    """
    sampler = TransformersSampler(max_new_tokens=64)
    module = SelfDistillModule(model, sampler=sampler, eval_samples=K)
    first = CritiqueDataModule(ArithmeticTask(test_size=QUESTIONS), eval_batch_size=64)
    second = CritiqueDataModule(DialectTask(test_size=QUESTIONS), eval_batch_size=64)
    unmarked = CritiqueDataModule(DialectTask(marker="", test_size=QUESTIONS), eval_batch_size=64)
    found: Row = {}
    for name, data in (("first", first), ("second", second), ("unmarked", unmarked)):
        path = folder / f"{name}.jsonl"
        quiet_trainer(AnswerRows(str(path))).test(module, datamodule=data, verbose=False)
        found[name] = columns([json.loads(line) for line in path.read_text().splitlines()])
    validation = quiet_trainer().validate(module, datamodule=second, verbose=False)
    return {**found, "val": validation[0][f"val/avg@{K}"]}


def quiet_trainer(*callbacks: AnswerRows) -> Trainer:
    """Build a trainer that writes no logs or checkpoints."""
    return Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("fit", nargs="*")
    args = parser.parse_args()
    if args.fit:
        command_line(args.fit)
    seed_everything(args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found = answer(args.model, args.out.parent)
    args.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
