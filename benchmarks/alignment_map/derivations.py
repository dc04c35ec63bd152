"""Questions with many right derivations: three expressions whose steps may interleave.

A question such as ``a:7+5*3,b:2-4+1,c:8*3-6`` has three expressions of two operations each, all
modulo 10. A derivation works through the six operations in any order that keeps the two operations
of each expression in order, so every question has 90 right derivations. The answer is the three
results together, in the order of the names.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from lightning_sd.lab.expressions import MODULUS, OPERATORS, Operation, assign_split
from lightning_sd.text.steps import parse_steps, render_steps

NAMES = "abc"
NOTATIONS = ("=", " is ")
"""Texts between an operation and its result, the notations of a step."""
LENGTH = 2 * len(NAMES)
"""Steps of a derivation with one operation per step."""
FIXED_ORDER = "ccbbaa"
"""The order of the condition with one order for all questions."""

_QUESTION = re.compile(
    r"a:([0-9](?:[-+*][0-9]){2}),b:([0-9](?:[-+*][0-9]){2}),c:([0-9](?:[-+*][0-9]){2})"
)
_STEP = re.compile(r"([abc]):([0-9])((?:[-+*][0-9]){1,2})( is |=)([0-9])")

Compute = Callable[[Operation], int]
"""Computes the result of one operation, right or wrong."""


class Step(NamedTuple):
    """One step of a derivation."""

    name: str
    """The expression that the step works on."""
    left: int
    """The value that it starts from."""
    rest: str
    """One or two operators with their right digits, such as ``+5`` or ``+5*3``."""
    notation: str
    result: int

    def write(self) -> str:
        """Write the step's body, such as ``a:7+5=2``."""
        return f"{self.name}:{self.left}{self.rest}{self.notation}{self.result}"


def compute_exactly(operation: Operation) -> int:
    """Return the true result."""
    return operation.result


def parse_question(text: str) -> dict[str, str]:
    """Return the expression of each name.

    Raises:
        ValueError: ``text`` is not a question of this task.

    Example:
        >>> parse_question("a:7+5*3,b:2-4+1,c:8*3-6")["b"]
        '2-4+1'
    """
    match = _QUESTION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a question of this task: write three expressions of two operations, "
            "such as 'a:7+5*3,b:2-4+1,c:8*3-6'."
        )
    return dict(zip(NAMES, match.groups(), strict=True))


def draw_question(split: str, rng: random.Random) -> str:
    """Draw a question of one split; the splits are disjoint by a hash of the text."""
    while True:
        parts = []
        for name in NAMES:
            tail = "".join(rng.choice(OPERATORS) + str(rng.randrange(MODULUS)) for _ in range(2))
            parts.append(f"{name}:{rng.randrange(MODULUS)}{tail}")
        text = ",".join(parts)
        if assign_split(text) == split:
            return text


def draw_order(rng: random.Random) -> str:
    """Draw one of the 90 orders, such as ``abacbc``: the expression of each step."""
    return "".join(rng.sample(NAMES * 2, LENGTH))


def derive(
    text: str,
    order: Iterable[str],
    notations: Sequence[str],
    compute: Compute = compute_exactly,
    begun: Sequence[int] = (),
) -> list[Step]:
    """Work through a question, one operation per step.

    Args:
        text: The question.
        order: The expression of each step, each name at most twice.
        notations: One per step.
        compute: Gives the results. A wrong one is carried on to the next step of its expression.
        begun: Results of the first steps, used instead of ``compute``.

    Returns:
        The steps.
    """
    rest = parse_question(text)
    steps: list[Step] = []
    for name, notation in zip(order, notations, strict=True):
        left, operator, right = rest[name][:3]
        operation = Operation(int(left), operator, int(right))
        given = len(steps) < len(begun)
        result = begun[len(steps)] if given else compute(operation)
        steps.append(Step(name, operation.left, operator + right, notation, result))
        rest[name] = f"{result}{rest[name][3:]}"
    return steps


def derive_coarsely(
    text: str, names: Iterable[str], notation: str, compute: Compute = compute_exactly
) -> list[Step]:
    """Work through a question with both operations of an expression in one step."""
    expressions = parse_question(text)
    steps = []
    for name in names:
        expression = expressions[name]
        value = int(expression[0])
        for operator, right in (expression[1:3], expression[3:5]):
            value = compute(Operation(value, operator, int(right)))
        steps.append(Step(name, int(expression[0]), expression[1:], notation, value))
    return steps


def write_solution(steps: Sequence[Step]) -> str:
    """Write a complete derivation with its answer, in step tags."""
    values = {step.name: step.result for step in steps}
    answer = "".join(str(values[name]) for name in NAMES)
    return render_steps([step.write() for step in steps], answer)


def spoil_solution(text: str, solution: str, rng: random.Random) -> str:
    """Replace one result of a right solution by a wrong one, which later steps carry on.

    Args:
        text: The question.
        solution: A complete solution, right in every step.
        rng: Draws the step and the wrong result.

    Returns:
        The solution with one operation per step.
    """
    steps = [read_step(body) for body in parse_steps(solution).steps]
    # A step of two operations becomes two steps.
    each = [step for step in steps if step is not None for _ in range(len(step.rest) // 2)]
    spoiled, shift = rng.randrange(LENGTH), rng.randrange(1, MODULUS)
    numbers = count()

    def compute(operation: Operation) -> int:
        return (operation.result + shift * (next(numbers) == spoiled)) % MODULUS

    order, notations = [step.name for step in each], [step.notation for step in each]
    return write_solution(derive(text, order, notations, compute))


def read_step(body: str) -> Step | None:
    """Read one step; None if it is not a step of this task."""
    match = _STEP.fullmatch(body)
    if match is None:
        return None
    name, left, rest, notation, result = match.groups()
    return Step(name, int(left), rest, notation, int(result))


def is_right_arithmetic(step: Step) -> bool:
    """Return whether the stated result follows from the step's own operation."""
    value = step.left
    for at in range(0, len(step.rest), 2):
        value = Operation(value, step.rest[at], int(step.rest[at + 1])).result
    return value == step.result


class Place(NamedTuple):
    """One step of an attempt and what it does in the question."""

    step: Step | None
    """None if the text is not a step."""
    fits: bool
    """Whether it applies the next operations of its expression, whatever its digits."""
    right: bool
    """Whether it also starts from the attempt's own value and states the result that follows."""


def follow_attempt(text: str, bodies: Sequence[str]) -> list[Place]:
    """Check each step against the state that the attempt itself has reached.

    A step that goes on from an earlier wrong result is right by this rule; only the step that
    made the error is wrong. Every order is accepted, and so are steps of two operations.

    Args:
        text: The question.
        bodies: The attempt's steps, without tags.

    Returns:
        One entry per step.
    """
    rest: Mapping[str, str] = parse_question(text)
    places = []
    for body in bodies:
        step = read_step(body)
        fits = step is not None and rest[step.name][1:].startswith(step.rest)
        right = False
        if step is not None and fits:
            right = step.left == int(rest[step.name][0]) and is_right_arithmetic(step)
            after = f"{step.result}{rest[step.name][1 + len(step.rest) :]}"
            rest = {**rest, step.name: after}
        places.append(Place(step, fits, right))
    return places


def complete_order(done: Iterable[str]) -> str:
    """Return the order of an attempt, with the operations that it left out at the end."""
    order = "".join(done)
    missing = [name * (2 - order.count(name)) for name in NAMES]
    return order + "".join(missing)
