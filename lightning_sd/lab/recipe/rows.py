"""The training rows: solving alone, solving with a critique, solving with a reference.

A self-teacher scores the student's attempts, also those that have gone wrong. Had it only ever seen
right solutions behind a critique, then after a wrong step it would ask for the critique's numbers
whatever stands before them, and the student would learn false facts from it. So a part of the rows
with a context begins behind an attempt's first wrong result and goes on as the attempt does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch.utils.data import Dataset

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.expressions import draw_texts
from lightning_sd.lab.recipe.pupil import Pupil, right_solution
from lightning_sd.lab.scribe import first_wrong_step, reference_solution, repair_attempt
from lightning_sd.types import Question

CRITIQUE_SHARE = 0.6
"""Of the rows with a context, the share that shows a critique; the others show a reference."""
CONTINUED_SHARE = 0.5
"""Of those rows whose attempt fails, the share that goes on from its first wrong result."""


class Lesson(NamedTuple):
    """One row with a context, from its beginning."""

    kind: str
    """Names the row."""
    prompt: str
    target: str
    """What the solver is to answer."""


Lessons = Callable[[str, str, random.Random], Lesson]
"""(bare question, a pupil's attempt, randomness) -> the row."""


def shipped_lesson(text: str, attempt: str, rng: random.Random) -> Lesson:
    """What the embedded solver was taught: the attempt repaired, or the reference solution."""
    if rng.random() < CRITIQUE_SHARE:
        target = repair_attempt(text, attempt).text
        return Lesson("critique", STEP_ALIGNED.format(question=text, critique=target), target)
    target = right_solution(text, rng)
    prompt = REFERENCE.format(question=text, reference=reference_solution(text))
    return Lesson("reference", prompt, target)


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
    lessons: Lessons = shipped_lesson
    """Makes the rows with a context; a study of other contexts brings its own."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Question:
        rng = random.Random(f"row/{self.seed}/{index}")
        text = next(draw_texts("pretrain", self.steps, rng))
        attempt = self.pupil.attempt(text, rng)
        if index // self.block % 2 == 0:
            return _row(f"alone/{index}", text, text, attempt)
        kind, prompt, target = self.lessons(text, attempt, rng)
        wrong = first_wrong_step(text, attempt)
        if wrong is None or rng.random() >= CONTINUED_SHARE:
            return _row(f"{kind}/{index}", text, prompt, target)
        cut = attempt.index(f"</step_{wrong + 1}>")
        return _row(f"{kind}/{index}", text, prompt, attempt[cut:], begun=attempt[:cut])


def _row(name: str, text: str, prompt: str, target: str, **extra: str) -> Question:
    return Question(
        id=name,
        text=text,
        messages=({"role": "user", "content": prompt},),
        reference=target,
        extra=extra,
    )
