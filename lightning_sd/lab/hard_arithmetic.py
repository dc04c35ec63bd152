"""Arithmetic questions that the embedded solver rarely answers correctly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.lab.expressions import LabSplit, draw_texts, parse_operations
from lightning_sd.lab.recipe.careless_solver import CarelessSolver
from lightning_sd.lab.step_repair import find_wrong_step
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Question, Verdict

_MAX_DRAWS = 2_000
"""Largest number of draws per wanted question."""


class HardArithmeticTask(ArithmeticTask):
    """Arithmetic with rare success, for methods that learn from few correct answers.

    The embedded solver learned from a simulated solver with a known error rate per operation. A
    question is used only if that solver gets all its steps right with probability at most
    ``chance``. A completion is correct only if the answer and every step are right, because a right
    digit after a wrong step is luck. ``Verdict.feedback`` describes the first error.

    Args:
        chance: Largest probability that the simulated solver gets all steps of a question right.
        steps: Operations per question.
        train_size: Number of training questions.
        val_size: Number of validation questions.
        test_size: Number of test questions.
        seed: Selects the questions. The splits are disjoint for every seed.
        instruction: System message that explains the format of a solution. None adds no system
            message.

    Raises:
        ValueError: ``chance`` is out of range, or too few questions satisfy it.
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
        # Seed 0 is the simulated solver that the embedded solver learned from.
        self._careless_solver = CarelessSolver.from_seed(0)
        super().__init__(steps, train_size, val_size, test_size, seed, instruction, explain=True)

    def draw(self, split: LabSplit, size: int) -> Sequence[str]:
        """Draw expressions that the simulated solver rarely gets right.

        Raises:
            ValueError: Too few expressions satisfy ``chance``.
        """
        rng = random.Random(f"rare/{split}/{self.steps}/{self.seed}")
        drawn: dict[str, None] = {}
        for text in islice(draw_texts(split, self.steps, rng), _MAX_DRAWS * size):
            if len(drawn) >= size:
                return list(drawn)
            if self._compute_chance(text) <= self.chance:
                drawn[text] = None
        raise ValueError(
            f"chance={self.chance}: only {len(drawn)} of {size} {split} questions with "
            f"steps={self.steps} were found. Raise chance or steps."
        )

    def verify(self, question: Question, completion: str) -> Verdict:
        """Return reward 1 if the answer and every step are right, else 0."""
        verdict = super().verify(question, completion)
        steps = len(parse_steps(completion).steps)
        wrong = find_wrong_step(question.text, completion)
        complete = wrong is None and steps == self.steps
        if not verdict.correct or complete:
            return verdict
        feedback = "a step is missing" if wrong is None else f"step {wrong + 1} is wrong"
        return Verdict(0.0, correct=False, answer=verdict.answer, feedback=feedback)

    def _compute_chance(self, text: str) -> float:
        """Return the probability that the simulated solver gets every step right."""
        chance = 1.0
        for operation in parse_operations(text):
            chance *= 1 - self._careless_solver.facts[operation].error_rate
        return chance
