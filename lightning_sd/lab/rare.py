"""Arithmetic that the embedded solver hardly ever gets right: for methods for rare success."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.expressions import LabSplit, draw_texts, operations
from lightning_sd.lab.recipe.pupil import Pupil
from lightning_sd.lab.scribe import first_wrong_step
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Question, Verdict

_TRIES = 2_000
"""Questions drawn for each one wanted, at most."""


class RareArithmeticTask(ArithmeticTask):
    """Questions made of what the embedded solver knows badly, and every step must be right.

    The solver learned from a pupil who gets some facts wrong most of the time. A question is taken
    only if that pupil would get all of its steps right with at most ``chance``; and since a right
    digit at the end of wrong steps is luck, an answer counts only with all of its steps. The
    verdict's feedback says where an attempt first goes wrong.

    Args:
        chance: The pupil's, at most.
        steps: See :class:`ArithmeticTask`; likewise the others.
        train_size: See there.
        val_size: See there.
        test_size: See there.
        seed: See there.
        instruction: See there.

    Raises:
        ValueError: A chance out of range, or one that hardly a question has.
    """

    def __init__(
        self,
        chance: float = 0.03,
        steps: int = 4,
        train_size: int = 2000,
        val_size: int = 200,
        test_size: int = 200,
        seed: int = 0,
        instruction: str | None = None,
    ) -> None:
        if not 0 < chance <= 1:
            raise ValueError(f"chance={chance}: must be above 0 and at most 1.")
        self.chance = chance
        self._pupil = Pupil.from_seed(0)  # the one whom the solver learned from
        super().__init__(steps, train_size, val_size, test_size, seed, instruction, explain=True)

    def draw(self, split: LabSplit, size: int) -> Sequence[str]:
        """Questions that the pupil would hardly get right; see the class."""
        rng = random.Random(f"rare/{split}/{self.steps}/{self.seed}")
        drawn: dict[str, None] = {}
        for text in islice(draw_texts(split, self.steps, rng), _TRIES * size):
            if len(drawn) >= size:
                return list(drawn)
            if self._chance(text) <= self.chance:
                drawn[text] = None
        raise ValueError(
            f"chance={self.chance}: only {len(drawn)} of {size} questions of {self.steps} steps "
            f"were found for the {split} split. Raise chance or steps."
        )

    def verify(self, question: Question, completion: str) -> Verdict:
        """Reward 1 for the right answer after right steps alone."""
        verdict = super().verify(question, completion)
        steps = len(parse_steps(completion).steps)
        wrong = first_wrong_step(question.text, completion)
        whole = wrong is None and steps == self.steps
        if not verdict.correct or whole:
            return verdict
        said = "a step is missing" if wrong is None else f"step {wrong + 1} is wrong"
        return Verdict(0.0, correct=False, answer=verdict.answer, feedback=said)

    def _chance(self, text: str) -> float:
        chance = 1.0
        for operation in operations(text):
            chance *= 1 - self._pupil.facts[operation].slip
        return chance
