"""The notations in which steps of the arithmetic task are written and read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lightning_sd.lab.expressions import Operation

# A step may begin with the solver's own words, as long as they hold no digit or operator.
_STEP = re.compile(
    r"(?P<lead>(?:[A-Za-z][A-Za-z ,:]{0,40})?)(?P<left>[0-9]{1,6})(?P<gap1>\s?)(?P<operator>[-+*])"
    r"(?P<gap2>\s?)(?P<right>[0-9]{1,6})(?P<equals>\s?=\s?|\sis\s)(?P<result>-?[0-9]{1,6})(?P<end>\.?)"
)


@dataclass(frozen=True)
class Notation:
    """The text around the numbers of one step.

    Args:
        lead: Text before the operation.
        gap1: Text between the left digit and the operator.
        gap2: Text between the operator and the right digit.
        equals: Text between the operation and its result.
        end: Text after the result.
    """

    lead: str = ""
    gap1: str = ""
    gap2: str = ""
    equals: str = "="
    end: str = ""

    def write(self, operation: Operation, result: int) -> str:
        """Write one step.

        Args:
            operation: The operation of the step.
            result: The result to write, right or wrong.

        Returns:
            The step's body, without tags.

        Example:
            >>> Notation(lead="so ", equals=" is ").write(Operation(7, "+", 5), 2)
            'so 7+5 is 2'
        """
        left, operator, right = operation
        return (
            f"{self.lead}{left}{self.gap1}{operator}{self.gap2}{right}"
            f"{self.equals}{result}{self.end}"
        )


NOTATIONS = tuple(
    Notation(lead=lead, equals=equals)
    for lead in ("", "so ", "then ", "now ")
    for equals in ("=", " is ")
)
"""The notations that the embedded solver writes. The task accepts others as well."""


def read_step(body: str) -> tuple[str, str] | None:
    """Read the equation of one step.

    Args:
        body: The step's body, without tags.

    Returns:
        The operation without spaces and the stated result, or None if the step is not an equation.

    Example:
        >>> read_step("so 7 + 5 is 2.")
        ('7+5', '2')
    """
    match = _STEP.fullmatch(body)
    if match is None:
        return None
    return match["left"] + match["operator"] + match["right"], match["result"]


def read_notation(body: str) -> Notation | None:
    """Read the notation of one step.

    Args:
        body: The step's body, without tags.

    Returns:
        The notation, or None if the step is not an equation.
    """
    match = _STEP.fullmatch(body)
    if match is None:
        return None
    return Notation(match["lead"], match["gap1"], match["gap2"], match["equals"], match["end"])
