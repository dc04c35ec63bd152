"""What a rubric is, and reading one out of what a model wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MIN_CRITERIA, MAX_CRITERIA = 3, 25
MAX_WORDS = 40
"""Of a description."""
LOWEST, HIGHEST = -1, 10
"""Weights; 0 would say nothing."""
MAX_CHARACTERS = 50_000
"""Beyond it a text is not read."""


@dataclass(frozen=True)
class Criterion:
    """One thing that an answer is judged by."""

    title: str
    description: str
    """At most 40 words."""
    weight: int
    """1 to 10: how much it is worth. -1: an answer must not do this."""


@dataclass(frozen=True)
class Rubric:
    """3 to 25 criteria, at least one of them negative.

    Example:
        >>> Rubric.of([{"title": "Unit", "description": "Gives the unit.", "weight": 3}])
        Traceback (most recent call last):
        ...
        ValueError: 1 criteria: a rubric has 3 to 25
    """

    criteria: tuple[Criterion, ...]

    @classmethod
    def of(cls, value: Any) -> Rubric:
        """Make a rubric of plain data.

        Args:
            value: A list of mappings with ``title``, ``description`` and ``weight``.

        Raises:
            ValueError: What is wrong with it.
        """
        if isinstance(value, Rubric):
            return value
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise ValueError("it is no array of criteria")
        if not MIN_CRITERIA <= len(value) <= MAX_CRITERIA:
            raise ValueError(
                f"{len(value)} criteria: a rubric has {MIN_CRITERIA} to {MAX_CRITERIA}"
            )
        criteria = tuple(_criterion(item, number) for number, item in enumerate(value, 1))
        if all(criterion.weight > 0 for criterion in criteria):
            raise ValueError("no negative criterion: at least one must have the weight -1")
        return cls(criteria)

    def plain(self) -> list[dict[str, Any]]:
        """The criteria as plain data, as :meth:`of` takes them."""
        return [asdict(criterion) for criterion in self.criteria]

    def render(self) -> str:
        """As the JSON array that teachers are shown and generators write, one line."""
        return json.dumps(self.plain(), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Parsed:
    """A rubric, or why there is none."""

    rubric: Rubric | None
    refused: str | None = None


def parse_rubric(text: str, *, complete: bool = True) -> Parsed:
    """Read the JSON array that a model wrote; prose and code fences may stand around it.

    What it thought, up to ``</think>``, is passed over.

    Args:
        text: What was written.
        complete: False: it was cut off at its length limit, so what is there may not be all.

    Returns:
        The first array that is a rubric. Without one, what is wrong with the first array of
        objects.

    Example:
        >>> parse_rubric("Sorry, no.").refused
        'no JSON array of criteria'
    """
    if not complete:
        return Parsed(None, "cut off at the length limit")
    decoder, problem = json.JSONDecoder(strict=False), "no JSON array of criteria"
    first = True
    shown = text.rpartition("</think>")[2].partition("<think>")[0][:MAX_CHARACTERS]
    # An array of criteria begins with an object; other brackets, as in prose, are not tried.
    for bracket in re.finditer(r"\[\s*\{", shown):
        try:
            value, _ = decoder.raw_decode(shown, bracket.start())
            return Parsed(Rubric.of(value))
        except RecursionError:
            continue
        except ValueError as error:
            if first:
                broken = isinstance(error, json.JSONDecodeError)
                problem, first = "broken JSON" if broken else str(error), False
    return Parsed(None, problem)


def _criterion(item: Any, number: int) -> Criterion:
    if not isinstance(item, Mapping):
        raise ValueError(f"criterion {number} is no object")
    texts = []
    for name in ("title", "description"):
        text = item.get(name)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"criterion {number} has no {name}")
        texts.append(" ".join(text.split()))
    words = len(texts[1].split())
    if words > MAX_WORDS:
        raise ValueError(f"criterion {number}: {words} words in its description, not {MAX_WORDS}")
    return Criterion(texts[0], texts[1], _weight(item.get("weight"), number))


def _weight(value: Any, number: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"criterion {number} has no whole weight")
    if not LOWEST <= value <= HIGHEST or value == 0:
        raise ValueError(f"criterion {number}: weight {value} is not -1 or 1 to {HIGHEST}")
    return value
