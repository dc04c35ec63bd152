"""Train the embedded solver from random weights, measure it and write its folder."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from jsonargparse import auto_cli

from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.recipe.card import write_card
from lightning_sd.lab.recipe.evaluate import Solver, evaluate
from lightning_sd.lab.recipe.train import Recipe, train

SHIPPED = Recipe()
SAMPLES = 12


def main(out: Path, recipe: Recipe = SHIPPED, questions: int = 200, threads: int = 2) -> None:
    """Train the embedded solver from random weights, measure it and write its folder.

    Args:
        out: Folder to write. An existing solver in it is overwritten.
        recipe: All settings that determine the weights.
        questions: Number of validation questions on which it is measured, with 12 answers each.
        threads: Processor threads. Another number may change the last digits of the weights.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    start = time.perf_counter()
    model, tokenizer = train(recipe)
    minutes = (time.perf_counter() - start) / 60
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    task = ArithmeticTask(steps=recipe.operations, val_size=questions)
    solver = Solver(model, tokenizer, torch.Generator().manual_seed(recipe.seed))
    report = evaluate(solver, task, task.questions("val"), samples=SAMPLES)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_card(out, recipe, report, parameters=parameters, minutes=minutes, threads=threads)
    print((out / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
