"""Expressions of the arithmetic task, evaluated from left to right modulo 10."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

LabSplit = Literal["pretrain", "train", "val", "test"]
"""``pretrain`` holds the training data of the embedded solver. The task never returns it."""

OPERATORS = "+-*"
MODULUS = 10
# Percent of all questions that belong to each split, in the order of LabSplit.
_SHARES = (50, 25, 10, 15)
_QUESTION = re.compile(r"[0-9](?:[-+*][0-9])+")


class Operation(NamedTuple):
    """One operation of an expression, applied to the previous result."""

    left: int
    operator: str
    right: int

    @property
    def result(self) -> int:
        """The last digit of the true result, from 0 to 9."""
        values = {
            "+": self.left + self.right,
            "-": self.left - self.right,
            "*": self.left * self.right,
        }
        return values[self.operator] % MODULUS


def parse_operations(text: str) -> list[Operation]:
    """Parse and evaluate an expression.

    Args:
        text: The expression.

    Returns:
        Its operations, each starting from the true result of the previous one.

    Raises:
        ValueError: ``text`` is not an expression of this task.

    Example:
        >>> [operation.result for operation in parse_operations("7+5*3-4*6")]
        [2, 6, 2, 2]
    """
    if not _QUESTION.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a question of the arithmetic task: write digits with +, - or * "
            "between them and nothing else, such as '7+5*3'."
        )
    value = int(text[0])
    work = []
    for operator, right in zip(text[1::2], text[2::2], strict=True):
        operation = Operation(value, operator, int(right))
        work.append(operation)
        value = operation.result
    return work


def assign_split(text: str) -> LabSplit:
    """Return the split of an expression, which depends only on a hash of its text."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100
    splits: tuple[LabSplit, ...] = get_args(LabSplit)
    return next(s for s, end in zip(splits, accumulate(_SHARES), strict=True) if bucket < end)


def draw_questions(split: LabSplit, size: int, *, steps: int, seed: int) -> list[str]:
    """Draw distinct expressions of one split.

    Args:
        split: The split.
        size: Number of expressions.
        steps: Operations per expression.
        seed: Selects the expressions. It does not change the split of an expression.

    Returns:
        Expressions, the same in every process. A larger ``size`` only appends to them.

    Raises:
        ValueError: ``size`` is more than half of the split, too many for random draws.
    """
    share = _SHARES[get_args(LabSplit).index(split)] / 100
    limit = int(share * MODULUS * (MODULUS * len(OPERATORS)) ** steps / 2)
    if size > limit:
        raise ValueError(
            f"{split}_size={size} is too large: with steps={steps} at most {limit} questions can "
            "be drawn. Lower the size or raise steps."
        )
    drawn: dict[str, None] = {}
    for text in draw_texts(split, steps, random.Random(f"{split}/{steps}/{seed}")):
        if len(drawn) >= size:
            break
        drawn[text] = None
    return list(drawn)


def draw_texts(split: LabSplit, steps: int, rng: random.Random) -> Iterator[str]:
    """Yield random expressions of one split without end. They may repeat."""
    while True:
        parts = [str(rng.randrange(MODULUS))]
        for _ in range(steps):
            parts += rng.choice(OPERATORS), str(rng.randrange(MODULUS))
        text = "".join(parts)
        if assign_split(text) == split:
            yield text
