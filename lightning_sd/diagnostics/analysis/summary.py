"""Means over all rollouts, with bootstrap intervals over questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from lightning_sd.diagnostics.analysis.rows import Row, share
from lightning_sd.metrics.intervals import Bootstrap, Estimate, Sums
from lightning_sd.metrics.rollout_measures import FIGURES, Share

Reader = Callable[[Row], Share | None]


def summarise(rows: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """Sum up an analysis.

    Intervals come from drawing questions, with all their rollouts, with replacement: rollouts of
    one question are not independent of each other.

    Args:
        rows: As :func:`.rows.rollout_row` makes them, one or more.
        seed: Of the draws.

    Returns:
        Plain values: counts; the accuracy; per context its ``figures``; and the ``differences``
        between contexts, taken over the rollouts for which both have the figure.

    Raises:
        ValueError: No rows.
    """
    if not rows:
        raise ValueError("There are no rollouts to sum up.")
    questions = list(dict.fromkeys(row["id"] for row in rows))
    over = _Over(rows, Bootstrap(len(questions), seed=seed), questions)
    names = list(dict.fromkeys(name for row in rows for name in row["contexts"]))
    return {
        "questions": len(questions),
        "rollouts": len(rows),
        "accuracy": over.mean(lambda row: Share(float(bool(row["correct"])), 1)),
        "with_steps": sum(bool(row["steps"]) for row in rows),
        "with_error": sum(bool(row["wrong"]) for row in rows),
        "errors_unknown": sum(row["errors_by"] is None for row in rows),
        "contexts": {name: _context(over, name) for name in names},
        "differences": [_difference(over, a, b) for a, b in combinations(names, 2)],
    }


class _Over:
    """Rows, and the draws of their questions."""

    def __init__(self, rows: Sequence[Row], bootstrap: Bootstrap, questions: list[str]) -> None:
        self.rows, self.bootstrap = rows, bootstrap
        self.order = {name: i for i, name in enumerate(questions)}

    def mean(self, read: Reader) -> dict[str, Any] | None:
        """One figure over all rollouts for which it is defined; None: for none of them."""
        shares = [found for row in self.rows if (found := read(row)) is not None]
        if not shares:
            return None
        sums = self._sums(self.rows, read)
        number = sum(found.number for found in shares)
        chances = [found.chance for found in shares if found.chance is not None]
        return {
            **_plain(self.bootstrap.mean(sums)),
            "chance": sum(chances) / number if len(chances) == len(shares) else None,
            "rollouts": len(shares),
        }

    def difference(self, first: Reader, second: Reader) -> dict[str, Any] | None:
        """The first minus the second, over the rollouts that have both."""
        rows = [row for row in self.rows if first(row) is not None and second(row) is not None]
        if not rows:
            return None
        sums = self._sums(rows, first), self._sums(rows, second)
        return {**_plain(self.bootstrap.difference(*sums)), "rollouts": len(rows)}

    def _sums(self, rows: Sequence[Row], read: Reader) -> Sums:
        totals, counts = [0.0] * len(self.order), [0.0] * len(self.order)
        for row in rows:
            found = read(row)
            if found is not None:
                totals[self.order[row["id"]]] += found.total
                counts[self.order[row["id"]]] += found.number
        return Sums(totals, counts)


def _plain(estimate: Estimate) -> dict[str, Any]:
    """One question alone says nothing about others: no interval."""
    known = estimate.questions > 1
    return {
        "value": estimate.value,
        "low": estimate.low if known else None,
        "high": estimate.high if known else None,
        "questions": estimate.questions,
    }


def _context(over: _Over, name: str) -> dict[str, Any]:
    scored = [row for row in over.rows if row["contexts"].get(name)]
    found = {figure: over.mean(_reader(name, figure)) for figure in FIGURES}
    return {
        "scored": len(scored),
        "scored_with_error": sum(bool(row["wrong"]) for row in scored),
        "figures": {figure: mean for figure, mean in found.items() if mean is not None},
    }


def _difference(over: _Over, a: str, b: str) -> dict[str, Any]:
    found = {f: over.difference(_reader(a, f), _reader(b, f)) for f in FIGURES}
    known = {figure: mean for figure, mean in found.items() if mean is not None}
    return {"of": a, "minus": b, "figures": known}


def _reader(context: str, figure: str) -> Reader:
    return lambda row: share(row, context, figure)
