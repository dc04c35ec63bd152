"""Questions with three independent operations, which may be solved in any order.

A question is ``a=7+8,b=9*6,c=4*8``. Each step of a solution states one result, such as ``b=54``;
six orders of the steps are right. All results have two digits.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

from lightning_sd.lab.expressions import assign_split
from lightning_sd.text.steps import parse_steps, render_steps

NAMES = "abc"
ORDERS = tuple("".join(order) for order in permutations(NAMES))
RESULTS = range(10, 100)

KINDS = ("sum", "product", "large")
"""``7+8``, ``9*6``, and sums or differences of larger numbers such as ``52-9``."""

_OPERATION = r"([0-9]{1,2})([-+*])([0-9]{1,2})"
_QUESTION = re.compile(",".join(f"{name}={_OPERATION}" for name in NAMES))
_STEP = re.compile(r"([abc])=([0-9]{1,4})")


def compute_results(text: str) -> dict[str, int]:
    """Return the true result of each name.

    Raises:
        ValueError: ``text`` is not a question of this task.

    Example:
        >>> compute_results("a=7+8,b=9*6,c=52-9")
        {'a': 15, 'b': 54, 'c': 43}
    """
    match = _QUESTION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a question of this task: write three operations, such "
            "as 'a=7+8,b=9*6,c=4*8'."
        )
    parts = match.groups()
    operations = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return {
        name: _compute(int(left), operator, int(right))
        for name, (left, operator, right) in zip(NAMES, operations, strict=True)
    }


def read_kinds(text: str) -> dict[str, str]:
    """Return the kind of operation of each name."""
    kinds = {}
    for part in text.split(","):
        is_large = len(part) > len("a=7+8")
        kinds[part[0]] = "large" if is_large else "product" if "*" in part else "sum"
    return kinds


def draw_question(split: str, shares: Mapping[str, float], rng: random.Random) -> str:
    """Draw a question of one split; the splits are disjoint by a hash of the text.

    Args:
        split: ``train``, ``val``, ``test`` or ``pretrain`` (the warm-up).
        shares: Kinds of operations and their shares.
        rng: Draws everything.
    """
    while True:
        text = ",".join(f"{name}={_draw_operation(shares, rng)}" for name in NAMES)
        if assign_split(text) == split:
            return text


def write_solution(order: Iterable[str], results: Mapping[str, int]) -> str:
    """Write a solution with one result per step, in the given order, and its answer."""
    return render_steps([f"{name}={results[name]}" for name in order], format_answer(results))


def format_answer(results: Mapping[str, int]) -> str:
    """Write the final answer: the results in the order of the names."""
    return ",".join(str(results[name]) for name in NAMES)


class Place(NamedTuple):
    """One step of an attempt."""

    name: str | None
    """The operation that it solves; None if it is no step, or repeats one that is solved."""
    right: bool


def follow_attempt(text: str, bodies: Sequence[str]) -> list[Place]:
    """Check each step of an attempt; every order is accepted.

    Args:
        text: The question.
        bodies: The attempt's steps, without tags.

    Returns:
        One entry per step.
    """
    results = compute_results(text)
    places: list[Place] = []
    for body in bodies:
        match = _STEP.fullmatch(body)
        name = match[1] if match else None
        if match is None or name in [place.name for place in places]:
            places.append(Place(None, False))
        else:
            places.append(Place(name, int(match[2]) == results[match[1]]))
    return places


def read_order(text: str, attempt: str) -> str:
    """Return the order of an attempt, with the names that it left out at the end."""
    names = [place.name for place in follow_attempt(text, parse_steps(attempt).steps) if place.name]
    return "".join([*names, *(name for name in NAMES if name not in names)])


def _draw_operation(shares: Mapping[str, float], rng: random.Random) -> str:
    (kind,) = rng.choices(list(shares), list(shares.values())) if len(shares) > 1 else shares
    is_wide = kind == "large" and rng.random() < 0.5
    while True:
        if kind == "large":
            left = rng.randrange(10, 100)
            right = rng.randrange(10, 100) if is_wide else rng.randrange(2, 10)
            operator = rng.choice("+-")
        else:
            left, right = rng.randrange(2, 10), rng.randrange(2, 10)
            operator = "*" if kind == "product" else "+"
        if _compute(left, operator, right) in RESULTS:
            return f"{left}{operator}{right}"


def _compute(left: int, operator: str, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator]
