"""A critic that is right about less than everything, by a known share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.critique.critics.rule import RuleCritic
from lightning_sd.lab.expressions import MODULUS, Operation
from lightning_sd.lab.scribe import read_step
from lightning_sd.tasks.base import Task
from lightning_sd.text.steps import compare_steps, parse_steps, render_steps
from lightning_sd.types import Critique

VERSION = 1
"""Part of the identity: raise it when the false corrections change."""
_NUMBER = re.compile(r"[0-9]+")


class WeakCritic(Critic):
    """The lab task's exact critic, with a share of its corrections wrong.

    A wrong correction names the right step as the first wrong one and gives a false digit for it,
    neither the true one nor the attempt's; what follows is worked out from that digit without
    further mistakes, as an honest but mistaken critic would, and the answer with it. Critiques
    that correct nothing (cases A to C) are never touched. Which attempts are met is decided by a
    hash of question and attempt, so that attempts met at a lower share are met at a higher one too.

    Args:
        share: Of the critiques that correct a step, how many do so wrongly: 0 to 1.
        seed: Decides which ones.

    Raises:
        ValueError: A share out of range.
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share={share}: must be between 0 and 1.")
        self.share, self.seed = share, seed
        self._exact = RuleCritic()

    def setup(self, task: Task) -> None:
        """Take the task's rules."""
        self._exact.setup(task)

    def identity(self) -> Mapping[str, Any]:
        """The exact critic's, and what makes this one weaker."""
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
        return [self._weakened(r, c) for r, c in zip(requests, exact, strict=True)]

    def _weakened(self, request: CritiqueRequest, critique: Critique) -> Critique:
        if not critique.changed:
            return critique
        draw = _draw(f"{self.seed}/{request.question.id}\n{request.attempt}")
        if draw % 10**9 >= self.share * 10**9:
            return critique
        return falsified(request.attempt, critique, draw // 10**9)


def falsified(attempt: str, critique: Critique, draw: int) -> Critique:
    """Make the correction of the first wrong step false and go on from it.

    Args:
        attempt: The solver's solution.
        critique: The exact critic's, with a changed step.
        draw: Decides the false digit.
    """
    first = min(critique.changed) - 1
    steps = list(parse_steps(critique.text).steps)
    operation, result = _read(steps[first])
    said = read_step(parse_steps(attempt).steps[first])
    taken = {result, int(said[1]) % MODULUS if said else result}
    others = [digit for digit in range(MODULUS) if digit not in taken]
    value = others[draw % len(others)]
    steps[first] = _rewritten(steps[first], operation.left, value)
    for place in range(first + 1, len(steps)):
        operation = _read(steps[place])[0]._replace(left=value)
        value = operation.result
        steps[place] = _rewritten(steps[place], operation.left, value)
    text = render_steps(steps, str(value))
    copied, changed, added = compare_steps(parse_steps(attempt), parse_steps(text))
    return replace(critique, text=text, copied=copied, changed=changed, added=added)


def _read(body: str) -> tuple[Operation, int]:
    read = read_step(body)
    assert read is not None, f"the exact critic wrote no equation: {body!r}"
    (left, operator, right), result = read[0], read[1]
    return Operation(int(left), operator, int(right)), int(result)


def _rewritten(body: str, left: int, result: int) -> str:
    """The same step with another first and last number."""
    numbers = list(_NUMBER.finditer(body))
    end, start = numbers[-1], numbers[0]
    body = body[: end.start()] + str(result) + body[end.end() :]
    return body[: start.start()] + str(left) + body[start.end() :]


def _draw(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
