"""Training rows: a bare question, a question with a critique, a question with a reference.

A self-teacher scores the student's attempts, including those that contain an error. A solver that
was trained only on right solutions after a critique would, after a wrong step, predict the
critique's numbers regardless of the preceding step, and the student would learn false facts from
it. Therefore some rows with a context start after an attempt's first wrong result and continue as
the attempt does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch.utils.data import Dataset

from lightning_sd.contexts.templates import REFERENCE, STEP_ALIGNED
from lightning_sd.lab.expressions import draw_texts
from lightning_sd.lab.recipe.careless_solver import CarelessSolver, write_right_solution
from lightning_sd.lab.step_repair import find_wrong_step, repair_attempt, write_reference
from lightning_sd.types import Question

CRITIQUE_SHARE = 0.6
"""Share of the rows with a context that show a critique. The others show a reference."""
CONTINUED_SHARE = 0.5
"""Share of the rows with a failed attempt that continue after its first wrong result."""


class Lesson(NamedTuple):
    """One row with a context."""

    kind: str
    """Kind of the context, part of the row's id."""
    prompt: str
    """The user's message, context included."""
    target: str
    """The solution that the solver is trained to write."""


LessonMaker = Callable[[str, str, random.Random], Lesson]
"""Makes a row from an expression, an attempt and a random generator."""


def make_shipped_lesson(text: str, attempt: str, rng: random.Random) -> Lesson:
    """Make a row as the embedded solver was trained on.

    Args:
        text: The expression.
        attempt: An attempt of the simulated solver.
        rng: Draws the kind of the context and the notation.

    Returns:
        A row that shows a critique and repeats it, or one that shows a reference and solves the
        question in the solver's own notations.
    """
    if rng.random() < CRITIQUE_SHARE:
        target = repair_attempt(text, attempt).text
        return Lesson("critique", STEP_ALIGNED.format(question=text, critique=target), target)
    target = write_right_solution(text, rng)
    prompt = REFERENCE.format(question=text, reference=write_reference(text))
    return Lesson("reference", prompt, target)


@dataclass(frozen=True)
class TrainingRows(Dataset[Question]):
    """Rows generated from their index, identical in every process.

    Blocks of rows without a context alternate with blocks of rows with one, so that a micro-batch
    holds rows of similar length. Each row is meant to be seen once.
    """

    careless_solver: CarelessSolver
    """Writes the attempts."""
    seed: int
    """Selects the rows, together with the index."""
    steps: int
    """Operations per question."""
    length: int
    """Number of rows."""
    block: int
    """Rows per micro-batch."""
    make_lesson: LessonMaker = make_shipped_lesson
    """Makes the rows with a context. Studies of other contexts pass their own."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Question:
        rng = random.Random(f"row/{self.seed}/{index}")
        text = next(draw_texts("pretrain", self.steps, rng))
        attempt = self.careless_solver.attempt(text, rng)
        if index // self.block % 2 == 0:
            return _build_row(f"alone/{index}", text, text, attempt)
        kind, prompt, target = self.make_lesson(text, attempt, rng)
        wrong = find_wrong_step(text, attempt)
        if wrong is None or rng.random() >= CONTINUED_SHARE:
            return _build_row(f"{kind}/{index}", text, prompt, target)
        cut = attempt.index(f"</step_{wrong + 1}>")
        return _build_row(f"{kind}/{index}", text, prompt, attempt[cut:], begun=attempt[:cut])


def _build_row(name: str, text: str, prompt: str, target: str, **extra: str) -> Question:
    return Question(
        id=name,
        text=text,
        messages=({"role": "user", "content": prompt},),
        reference=target,
        extra=extra,
    )
