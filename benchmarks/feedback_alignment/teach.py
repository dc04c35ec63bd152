"""Train the study's solver, or only measure it.

    python -m benchmarks.feedback_alignment.teach
    python -m benchmarks.feedback_alignment.teach --measure

The recipe is that of the embedded solver with other rows with a context (``lesson.py``). Training
continues from the embedded solver: a solver trained on all forms from scratch for as long read
their content (96% right with a critique) but did not learn to keep the attempt's notation (7%).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.feedback_alignment.lesson import draw_lesson
from lightning_sd.lab.recipe.train import Recipe, train
from lightning_sd.models import PretrainedModel

EMBEDDED = "package:lightning_sd/lab/solver"
RECIPE = Recipe(steps=3000, lr=1e-3)
SOLVER = Path(__file__).parent / "solver"


def teach(out: Path, recipe: Recipe, threads: int) -> None:
    """Continue from the embedded solver; write weights, tokenizer and processor minutes."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    start = time.process_time()
    model, tokenizer = train(recipe, draw_lesson, PretrainedModel(EMBEDDED))
    minutes = (time.process_time() - start) / 60
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(
        json.dumps({"minutes": round(minutes, 1), "threads": threads, "steps": recipe.steps}) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SOLVER)
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--measure", action="store_true", help="keep the weights")
    args = parser.parse_args()
    if not args.measure:
        teach(args.out, replace(RECIPE, steps=args.steps), threads=1)
    from benchmarks.feedback_alignment.reading import write_card

    write_card(args.out, args.questions)


if __name__ == "__main__":
    main()
