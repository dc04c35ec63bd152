"""Average the measures over all rollouts, with bootstrap intervals over questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from lightning_sd.diagnostics.analysis.rows import Row, get_share
from lightning_sd.metrics.intervals import Bootstrap, Estimate, Sums, sum_per_question
from lightning_sd.metrics.measures import MEASURES, Share

Reader = Callable[[Row], Share | None]


def summarize_rows(rows: Sequence[Row], *, seed: int = 0) -> dict[str, Any]:
    """Summarize an analysis.

    Questions are resampled together with all their rollouts, because rollouts of one question
    depend on each other.

    Args:
        rows: Rows from :func:`.rows.build_row`, at least one.
        seed: Seed of the resamples.

    Returns:
        Plain values: the counts ``questions``, ``rollouts``, ``with_steps``, ``with_error`` (a
        wrong step) and ``errors_unknown``; ``accuracy``; ``contexts``, which maps each name to its
        ``measures``; and ``differences`` between each two contexts, over the rollouts for which
        both define the measure.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("rows: there is no rollout to summarize.")
    averages = _Averages(rows, seed)
    names = list(dict.fromkeys(name for row in rows for name in row["contexts"]))
    return {
        "questions": len(averages.questions),
        "rollouts": len(rows),
        "accuracy": averages.mean(lambda row: Share(float(bool(row["correct"])), 1)),
        "with_steps": sum(bool(row["steps"]) for row in rows),
        "with_error": sum(bool(row["wrong"]) for row in rows),
        "errors_unknown": sum(row["errors_by"] is None for row in rows),
        "contexts": {name: _summarize_context(averages, name) for name in names},
        "differences": [_compare_contexts(averages, a, b) for a, b in combinations(names, 2)],
    }


class _Averages:
    """The rows, and one set of resamples of their questions."""

    def __init__(self, rows: Sequence[Row], seed: int) -> None:
        self.rows = rows
        self.questions = list(dict.fromkeys(row["id"] for row in rows))
        self.bootstrap = Bootstrap(len(self.questions), seed=seed)

    def mean(self, read: Reader) -> dict[str, Any] | None:
        """Average one measure over the rollouts that define it; None if none does."""
        shares = [share for row in self.rows if (share := read(row)) is not None]
        if not shares:
            return None
        number = sum(share.number for share in shares)
        chances = [share.chance for share in shares if share.chance is not None]
        return {
            **_to_plain(self.bootstrap.mean(self._add_up(self.rows, read))),
            "chance": sum(chances) / number if len(chances) == len(shares) else None,
            "rollouts": len(shares),
        }

    def difference(self, first: Reader, second: Reader) -> dict[str, Any] | None:
        """Average the first minus the second over the rollouts that define both."""
        rows = [row for row in self.rows if first(row) is not None and second(row) is not None]
        if not rows:
            return None
        sums = self._add_up(rows, first), self._add_up(rows, second)
        return {**_to_plain(self.bootstrap.difference(*sums)), "rollouts": len(rows)}

    def _add_up(self, rows: Sequence[Row], read: Reader) -> Sums:
        parts = ((row["id"], share and share[:2]) for row in rows for share in [read(row)])
        return sum_per_question(parts, self.questions)


def _to_plain(estimate: Estimate) -> dict[str, Any]:
    # One question says nothing about the spread over questions.
    known = estimate.questions > 1
    return {
        "value": estimate.value,
        "low": estimate.low if known else None,
        "high": estimate.high if known else None,
        "questions": estimate.questions,
    }


def _summarize_context(averages: _Averages, name: str) -> dict[str, Any]:
    scored = [row for row in averages.rows if row["contexts"].get(name)]
    means = {measure: averages.mean(_make_reader(name, measure)) for measure in MEASURES}
    return {
        "scored": len(scored),
        "scored_with_error": sum(bool(row["wrong"]) for row in scored),
        "measures": {measure: mean for measure, mean in means.items() if mean is not None},
    }


def _compare_contexts(averages: _Averages, first: str, second: str) -> dict[str, Any]:
    gaps = {
        measure: averages.difference(_make_reader(first, measure), _make_reader(second, measure))
        for measure in MEASURES
    }
    known = {measure: gap for measure, gap in gaps.items() if gap is not None}
    return {"of": first, "minus": second, "measures": known}


def _make_reader(context: str, measure: str) -> Reader:
    return lambda row: get_share(row, context, measure)
