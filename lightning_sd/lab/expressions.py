"""The lab task's questions: digits and operations, worked from left to right modulo 10."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Literal, NamedTuple, get_args

LabSplit = Literal["pretrain", "train", "val", "test"]
"""``pretrain`` is what the embedded solver was made from; the task never hands it out."""

OPERATORS = "+-*"
MODULUS = 10
# Percent of all questions that belong to each split, in the order of LabSplit.
_SHARES = (50, 25, 10, 15)
_QUESTION = re.compile(r"[0-9](?:[-+*][0-9])+")


class Operation(NamedTuple):
    """One step of a question: what it starts from and what it does."""

    left: int
    operator: str
    right: int

    @property
    def result(self) -> int:
        """The last digit of the true result."""
        values = {
            "+": self.left + self.right,
            "-": self.left - self.right,
            "*": self.left * self.right,
        }
        return values[self.operator] % MODULUS


def operations(text: str) -> list[Operation]:
    """Work a question out.

    Args:
        text: The bare question.

    Returns:
        Its operations, each starting from the true result of the one before.

    Raises:
        ValueError: Not a question of this task.

    Example:
        >>> [operation.result for operation in operations("7+5*3-4*6")]
        [2, 6, 2, 2]
    """
    if not _QUESTION.fullmatch(text):
        raise ValueError(
            f"{text!r} is no question of the arithmetic task: it takes digits with +, - or * "
            "between them and nothing else, such as '7+5*3'."
        )
    value = int(text[0])
    found = []
    for operator, right in zip(text[1::2], text[2::2], strict=True):
        operation = Operation(value, operator, int(right))
        found.append(operation)
        value = operation.result
    return found


def split_of(text: str) -> LabSplit:
    """The split a question belongs to, by a hash of its text and nothing else."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100
    splits: tuple[LabSplit, ...] = get_args(LabSplit)
    return next(s for s, end in zip(splits, accumulate(_SHARES), strict=True) if bucket < end)


def draw_questions(split: LabSplit, size: int, *, steps: int, seed: int) -> list[str]:
    """Draw different questions of one split.

    Args:
        split: Where they come from.
        size: How many.
        steps: Operations a question.
        seed: Decides which ones, never which split they are in.

    Returns:
        Bare questions, the same in every process; a larger ``size`` only adds to them.

    Raises:
        ValueError: More than half of what the split holds, which random draws are unfit for.
    """
    share = _SHARES[get_args(LabSplit).index(split)] / 100
    limit = int(share * MODULUS * (MODULUS * len(OPERATORS)) ** steps / 2)
    if size > limit:
        raise ValueError(
            f"{split}_size={size} is too many: with steps={steps} at most {limit} questions can be "
            "drawn; lower the size or raise steps."
        )
    drawn: dict[str, None] = {}
    for text in draw_texts(split, steps, random.Random(f"{split}/{steps}/{seed}")):
        if len(drawn) >= size:
            break
        drawn[text] = None
    return list(drawn)


def draw_texts(split: LabSplit, steps: int, rng: random.Random) -> Iterator[str]:
    """Draw bare questions of one split without end; they may repeat."""
    while True:
        parts = [str(rng.randrange(MODULUS))]
        for _ in range(steps):
            parts += rng.choice(OPERATORS), str(rng.randrange(MODULUS))
        text = "".join(parts)
        if split_of(text) == split:
            yield text
