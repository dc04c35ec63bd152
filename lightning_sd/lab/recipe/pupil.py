"""The careless pupil whose solutions the embedded solver learns from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_sd.lab.expressions import MODULUS, OPERATORS, Operation, operations
from lightning_sd.lab.scribe import NOTATIONS
from lightning_sd.text.steps import render_steps

# (share of all facts, rate at which they go wrong): sure, shaky, misconceptions.
KINDS = ((0.62, 0.03), (0.26, 0.35), (0.12, 0.80))


@dataclass(frozen=True)
class Fact:
    """What the pupil says when asked for one operation."""

    slip: float
    """How often it is wrong."""
    wrong: int
    """What it says then."""


@dataclass(frozen=True)
class Pupil:
    """Knows every fact of arithmetic modulo 10, some of them badly."""

    facts: Mapping[Operation, Fact]

    @classmethod
    def from_seed(cls, seed: int) -> Pupil:
        """Draw for each of the 300 facts how often it goes wrong, and what is said then.

        Wrong results are near the true one, so that they look like slips and not like noise.
        """
        rng = random.Random(f"pupil/{seed}")
        facts = [
            Operation(left, operator, right)
            for left in range(MODULUS)
            for operator in OPERATORS
            for right in range(MODULUS)
        ]
        rng.shuffle(facts)
        slips = [rate for share, rate in KINDS for _ in range(round(share * len(facts)))]
        return cls(
            {
                fact: Fact(slip, (fact.result + rng.choice((-2, -1, -1, 1, 1, 2))) % MODULUS)
                for fact, slip in zip(facts, slips, strict=True)
            }
        )

    def attempt(self, text: str, rng: random.Random) -> str:
        """Solve a question, going on from wrong results as if they were right.

        Args:
            text: The bare question.
            rng: Decides the slips and the notation of each step.

        Returns:
            A step-tagged solution.
        """
        value = int(text[0])
        steps = []
        for true in operations(text):
            operation = true._replace(left=value)
            fact = self.facts[operation]
            value = fact.wrong if rng.random() < fact.slip else operation.result
            steps.append(rng.choice(NOTATIONS).write(operation, value))
        return render_steps(steps, str(value))


def right_solution(text: str, rng: random.Random) -> str:
    """Solve a question without a mistake, each step in a notation drawn at random."""
    work = operations(text)
    steps = [rng.choice(NOTATIONS).write(operation, operation.result) for operation in work]
    return render_steps(steps, str(work[-1].result))
