"""A rubric, and a parser that finds one in a model's text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MIN_CRITERIA, MAX_CRITERIA = 3, 25
MAX_WORDS = 40
"""Maximum number of words in a description."""
LOWEST, HIGHEST = -1, 10
"""Range of the weights; 0 is refused, because it would have no effect."""
MAX_CHARACTERS = 50_000
"""The rest of a longer text is not read."""


@dataclass(frozen=True)
class Criterion:
    """One criterion by which an answer is judged."""

    title: str
    """A few words."""
    description: str
    """At most 40 words."""
    weight: int
    """1 to 10: how much the criterion counts. -1: a mistake that an answer must not make."""


@dataclass(frozen=True)
class Rubric:
    """3 to 25 criteria, at least one of them negative.

    Example:
        >>> Rubric.from_list([{"title": "Unit", "description": "Gives the unit.", "weight": 3}])
        Traceback (most recent call last):
        ...
        ValueError: 1 criteria: give 3 to 25
    """

    criteria: tuple[Criterion, ...]

    @classmethod
    def from_list(cls, value: Any) -> Rubric:
        """Make a rubric from plain data.

        Args:
            value: A list of mappings with ``title``, ``description`` and ``weight``; or a rubric,
                which is returned unchanged.

        Raises:
            ValueError: The data are not a valid rubric; the message names the criterion.
        """
        if isinstance(value, Rubric):
            return value
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise ValueError("not an array of criteria")
        if not MIN_CRITERIA <= len(value) <= MAX_CRITERIA:
            raise ValueError(f"{len(value)} criteria: give {MIN_CRITERIA} to {MAX_CRITERIA}")
        criteria = tuple(_parse_criterion(item, number) for number, item in enumerate(value, 1))
        if all(criterion.weight > 0 for criterion in criteria):
            raise ValueError("no negative criterion: give at least one the weight -1")
        return cls(criteria)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the criteria as plain data, for :meth:`from_list`."""
        return [asdict(criterion) for criterion in self.criteria]

    def render(self) -> str:
        """Write the rubric as a JSON array on one line, as teachers see it."""
        return json.dumps(self.to_list(), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class ParsedRubric:
    """A rubric that was found in a text, or the reason why there is none."""

    rubric: Rubric | None
    refused: str | None = None
    """The reason; None if there is a rubric."""


def parse_rubric(text: str, *, complete: bool = True) -> ParsedRubric:
    """Find a rubric in a model's text: a JSON array, possibly inside prose or code fences.

    Thinking, up to ``</think>``, is skipped.

    Args:
        text: The model's text.
        complete: False if the text was cut off at its length limit; it is then refused, because
            criteria may be missing.

    Returns:
        The first array that is a valid rubric. If there is none, the reason why the first array of
        objects is not.

    Example:
        >>> parse_rubric("Sorry, no.").refused
        'no JSON array of criteria'
    """
    if not complete:
        return ParsedRubric(None, "cut off at the length limit")
    decoder, problem = json.JSONDecoder(strict=False), "no JSON array of criteria"
    first = True
    answer = text.rpartition("</think>")[2].partition("<think>")[0][:MAX_CHARACTERS]
    # An array of criteria begins with an object; other brackets, as in prose, are skipped.
    for bracket in re.finditer(r"\[\s*\{", answer):
        try:
            value, _ = decoder.raw_decode(answer, bracket.start())
            return ParsedRubric(Rubric.from_list(value))
        except RecursionError:
            continue
        except ValueError as error:
            if first:
                broken = isinstance(error, json.JSONDecodeError)
                problem, first = "broken JSON" if broken else str(error), False
    return ParsedRubric(None, problem)


def _parse_criterion(item: Any, number: int) -> Criterion:
    if not isinstance(item, Mapping):
        raise ValueError(f"criterion {number} is not an object")
    texts = []
    for name in ("title", "description"):
        text = item.get(name)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"criterion {number} has no {name}")
        texts.append(" ".join(text.split()))
    words = len(texts[1].split())
    if words > MAX_WORDS:
        raise ValueError(f"criterion {number}: {words} words in its description, over {MAX_WORDS}")
    return Criterion(texts[0], texts[1], _parse_weight(item.get("weight"), number))


def _parse_weight(value: Any, number: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"criterion {number}: its weight must be a whole number")
    if not LOWEST <= value <= HIGHEST or value == 0:
        raise ValueError(f"criterion {number}: weight {value} is not -1 or 1 to {HIGHEST}")
    return value
