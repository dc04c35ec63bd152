"""The simulated solver with known error rates that the embedded solver learns from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from lightning_sd.lab.expressions import MODULUS, OPERATORS, Operation, parse_operations
from lightning_sd.lab.step_notation import NOTATIONS
from lightning_sd.text.steps import render_steps

# (share of all operations, error rate): well known, uncertain, misconceptions.
ERROR_RATES = ((0.62, 0.03), (0.26, 0.35), (0.12, 0.80))


@dataclass(frozen=True)
class FactBelief:
    """How the simulated solver computes one operation."""

    error_rate: float
    """Probability of a wrong result."""
    wrong_result: int
    """The result that it writes when it is wrong."""


@dataclass(frozen=True)
class CarelessSolver:
    """A simulated solver that makes errors at a known rate per operation."""

    facts: Mapping[Operation, FactBelief]
    """One entry per operation modulo 10, 300 in total."""

    @classmethod
    def from_seed(cls, seed: int) -> CarelessSolver:
        """Draw an error rate and a wrong result for each of the 300 operations.

        A wrong result differs from the true one by 1 or 2, as a slip does.
        """
        rng = random.Random(f"pupil/{seed}")
        operations = [
            Operation(left, operator, right)
            for left in range(MODULUS)
            for operator in OPERATORS
            for right in range(MODULUS)
        ]
        rng.shuffle(operations)
        rates = [rate for share, rate in ERROR_RATES for _ in range(round(share * len(operations)))]
        offsets = (-2, -1, -1, 1, 1, 2)
        return cls(
            {
                operation: FactBelief(rate, (operation.result + rng.choice(offsets)) % MODULUS)
                for operation, rate in zip(operations, rates, strict=True)
            }
        )

    def attempt(self, text: str, rng: random.Random) -> str:
        """Solve an expression. After a wrong result, continue from it as if it were right.

        Args:
            text: The expression.
            rng: Draws the errors and the notation of each step.

        Returns:
            A step-tagged solution.
        """
        value = int(text[0])
        steps = []
        for true in parse_operations(text):
            operation = true._replace(left=value)
            belief = self.facts[operation]
            wrong = rng.random() < belief.error_rate
            value = belief.wrong_result if wrong else operation.result
            steps.append(rng.choice(NOTATIONS).write(operation, value))
        return render_steps(steps, str(value))


def write_right_solution(text: str, rng: random.Random) -> str:
    """Solve an expression without errors, each step in a random notation."""
    work = parse_operations(text)
    steps = [rng.choice(NOTATIONS).write(operation, operation.result) for operation in work]
    return render_steps(steps, str(work[-1].result))
