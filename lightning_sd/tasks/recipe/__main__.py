"""Train the embedded solver from nothing and write its folder."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from jsonargparse import auto_cli

from lightning_sd.tasks.recipe.card import write_card
from lightning_sd.tasks.recipe.evaluate import evaluate
from lightning_sd.tasks.recipe.train import Recipe, train


def main(out: Path, recipe: Recipe = Recipe(), questions: int = 200, threads: int = 2) -> None:
    """Train the embedded solver from nothing, measure it and write its folder.

    Args:
        out: Folder to write; an older solver in it is overwritten.
        recipe: Everything that decides the weights.
        questions: Fresh questions on which it is measured, 12 answers each.
        threads: Processor threads; another number may change the weights in the last digits.
    """
    torch.set_num_threads(threads)
    start = time.perf_counter()
    model, tokenizer = train(recipe)
    minutes = (time.perf_counter() - start) / 60
    from lightning_sd.tasks.arithmetic import ArithmeticTask

    task = ArithmeticTask(steps=recipe.operations, val_size=questions)
    report = evaluate(
        model, tokenizer, task, task.questions("val"), samples=12, seed=recipe.seed
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_card(out, recipe, report, model, minutes)
    print(report)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
