"""A critic with a known error rate."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.critics.rule import RuleCritic
from lightning_sd.lab.expressions import MODULUS, Operation
from lightning_sd.lab.step_notation import read_step
from lightning_sd.tasks.base import Task
from lightning_sd.text.steps import compare_steps, parse_steps, render_steps
from lightning_sd.types import Critique

VERSION = 1
"""Part of the identity; increase it when the false corrections change."""
_NUMBER = re.compile(r"[0-9]+")


class WeakCritic(Critic):
    """The lab task's exact critic, with a share of its corrections wrong.

    A wrong correction locates the first wrong step correctly and gives a false digit for it,
    neither the true one nor the attempt's. Later steps and the answer are computed from that digit
    without further errors, as by an honest but mistaken critic. Critiques that correct nothing
    (cases A to C) are unchanged. A hash of question and attempt selects the affected attempts, so
    the attempts affected at a lower share are also affected at a higher one.

    Args:
        share: Share of the correcting critiques that are wrong, 0 to 1.
        seed: Seed of the selection.

    Raises:
        ValueError: ``share`` is out of range.
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share={share}: must be between 0 and 1.")
        self.share, self.seed = share, seed
        self._exact = RuleCritic()

    def setup(self, task: Task) -> None:
        """Set up the exact critic with the task's rules."""
        self._exact.setup(task)

    def identity(self) -> Mapping[str, Any]:
        """Return the exact critic's identity with this critic's settings."""
        return {
            "critic": "weak",
            "version": VERSION,
            "share": self.share,
            "seed": self.seed,
            "exact": dict(self._exact.identity()),
        }

    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Repair each attempt, some of them wrongly."""
        exact = self._exact.critique(requests)
        return [self._weaken(r, c) for r, c in zip(requests, exact, strict=True)]

    def _weaken(self, request: CritiqueRequest, critique: Critique) -> Critique:
        if not critique.changed:
            return critique
        draw = _hash_text(f"{self.seed}/{request.question.id}\n{request.attempt}")
        if draw % 10**9 >= self.share * 10**9:
            return critique
        return falsify(request.attempt, critique, draw // 10**9)


def falsify(attempt: str, critique: Critique, draw: int) -> Critique:
    """Falsify the correction of the first wrong step and recompute the later steps.

    Args:
        attempt: The solver's solution.
        critique: The exact critic's critique, with a changed step.
        draw: Random number that selects the false digit.
    """
    first = min(critique.changed) - 1
    steps = list(parse_steps(critique.text).steps)
    operation, result = _parse_step(steps[first])
    said = read_step(parse_steps(attempt).steps[first])
    taken = {result, int(said[1]) % MODULUS if said else result}
    others = [digit for digit in range(MODULUS) if digit not in taken]
    value = others[draw % len(others)]
    steps[first] = _rewrite(steps[first], operation.left, value)
    for place in range(first + 1, len(steps)):
        operation = _parse_step(steps[place])[0]._replace(left=value)
        value = operation.result
        steps[place] = _rewrite(steps[place], operation.left, value)
    text = render_steps(steps, str(value))
    copied, changed, added = compare_steps(parse_steps(attempt), parse_steps(text))
    return replace(critique, text=text, copied=copied, changed=changed, added=added)


def _parse_step(body: str) -> tuple[Operation, int]:
    read = read_step(body)
    if read is None:
        raise ValueError(f"The exact critic wrote no equation: {body!r}.")
    (left, operator, right), result = read[0], read[1]
    return Operation(int(left), operator, int(right)), int(result)


def _rewrite(body: str, left: int, result: int) -> str:
    """Replace the first and the last number of a step."""
    numbers = list(_NUMBER.finditer(body))
    end, start = numbers[-1], numbers[0]
    body = body[: end.start()] + str(result) + body[end.end() :]
    return body[: start.start()] + str(left) + body[start.end() :]


def _hash_text(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
