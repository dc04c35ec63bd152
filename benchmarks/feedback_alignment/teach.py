"""Make the study's solver, or only measure it again.

    python -m benchmarks.feedback_alignment.teach
    python -m benchmarks.feedback_alignment.teach --measure

The recipe is the embedded solver's own; only the rows with a context differ (see ``lesson.py``).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from benchmarks.feedback_alignment.lesson import every_form
from lightning_sd.tasks.recipe.train import Recipe, train

SOLVER = Path(__file__).parent / "solver"


def teach(out: Path, recipe: Recipe, threads: int) -> None:
    """Train from nothing and write weights, tokenizer and the processor minutes it took."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    start = time.process_time()
    model, tokenizer = train(recipe, every_form)
    minutes = (time.process_time() - start) / 60
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(
        json.dumps({"minutes": round(minutes, 1), "threads": threads, "steps": recipe.steps}) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SOLVER)
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--measure", action="store_true", help="leave the weights as they are")
    args = parser.parse_args()
    if not args.measure:
        teach(args.out, Recipe(steps=args.steps), threads=1)
    from benchmarks.feedback_alignment.reading import write_card

    write_card(args.out, args.questions)


if __name__ == "__main__":
    main()
