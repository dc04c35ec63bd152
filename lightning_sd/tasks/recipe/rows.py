"""The training rows: solving alone, solving with a critique, solving with a reference."""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch.utils.data import Dataset

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.tasks.expressions import draw_texts
from lightning_sd.tasks.recipe.pupil import Pupil, right_solution
from lightning_sd.tasks.scribe import reference_solution, repair_attempt
from lightning_sd.types import Question

CRITIQUE_SHARE = 0.6
"""Of the rows with a context, the share that shows a critique; the others show a reference."""


@dataclass(frozen=True)
class Rows(Dataset[Question]):
    """Row i is the same in every process, and no row is meant to be seen twice.

    Blocks of rows without a context and blocks of rows with one take turns, so that micro-batches
    hold rows of like length.
    """

    pupil: Pupil
    seed: int
    steps: int
    """Operations a question."""
    length: int
    """Rows in all."""
    block: int
    """Rows of a micro-batch."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Question:
        rng = random.Random(f"row/{self.seed}/{index}")
        text = next(draw_texts("pretrain", self.steps, rng))
        kind = "alone"
        if index // self.block % 2:
            kind = "critique" if rng.random() < CRITIQUE_SHARE else "reference"
        if kind == "alone":
            prompt, target = text, self.pupil.attempt(text, rng)
        elif kind == "critique":
            target = repair_attempt(text, self.pupil.attempt(text, rng)).text
            prompt = STEP_ALIGNED.format(question=text, critique=target)
        else:
            target = right_solution(text, rng)
            prompt = REFERENCE.format(question=text, reference=reference_solution(text))
        return row(f"{kind}/{index}", text, prompt, target)


def row(name: str, text: str, prompt: str, target: str | None = None) -> Question:
    """A question whose prompt is one user's message."""
    return Question(
        id=name,
        text=text,
        messages=({"role": "user", "content": prompt},),
        reference=target,
    )
