"""Reading of raw results: runs by condition, scores question by question, spending along a run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from benchmarks.feedback_alignment.study import ABLATIONS, BASE, TABLE
from benchmarks.grid import Row

ORDER = (BASE, *TABLE, *ABLATIONS)
BUDGETS = {
    "rollouts": "rollouts",
    "tokens": "tokens (sampled and critique)",
    "cpu_seconds": "seconds of one core",
}
"""What budgets are counted in, and how figures call it."""


class Point(NamedTuple):
    """One validation of one run."""

    spent: float
    value: float


def by_condition(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Runs of each condition, seeds ascending, in the order of tables."""
    return {
        name: sorted((r for r in rows if r["name"] == name), key=lambda row: row["seed"])
        for name in ORDER
        if any(row["name"] == name for row in rows)
    }


def scores(runs: Sequence[Row], metric: str) -> list[list[float]]:
    """``[seeds][questions]`` of one test metric, questions in the same order in each seed.

    Raises:
        ValueError: Seeds that did not answer the same questions.
    """
    tables = [{row["id"]: float(row[metric]) for row in run["test"]} for run in runs]
    ids = sorted(tables[0])
    for run, table in zip(runs, tables, strict=True):
        if sorted(table) != ids:
            raise ValueError(f"{run['key']}: answered other test questions than {runs[0]['key']}.")
    return [[table[name] for name in ids] for table in tables]


def spent(point: Row, budget: str) -> float:
    """What a run had spent at a validation; nothing at step 0."""
    if budget == "tokens":
        return float(point.get("sampled", 0)) + float(point.get("written", 0))
    return float(point.get(budget, 0))


def curve(run: Row, start: Row | None, budget: str) -> list[Point]:
    """A run's validation accuracy along its budget, from the untrained solver of its seed on."""
    before = [] if start is None else start["curve"][:1]
    return [Point(spent(point, budget), value(point)) for point in (*before, *run["curve"])]


def value(point: Row) -> float:
    """Validation accuracy, Avg@k."""
    return next(float(v) for name, v in point.items() if name.startswith("val/avg@"))


def within(points: Sequence[Point], budget: float) -> float:
    """The best validation that a run had seen before its budget was spent; nan: none."""
    found = [point.value for point in points if point.spent <= budget * (1 + 1e-9)]
    return max(found, default=float("nan"))


def along(points: Sequence[Point]) -> float:
    """Mean accuracy along a run's budget, straight lines between validations."""
    pairs = list(pairwise(points))
    area = sum((b.spent - a.spent) * (a.value + b.value) / 2 for a, b in pairs)
    return area / (points[-1].spent - points[0].spent)


def last(runs: Sequence[Row], budget: str) -> float:
    """What a condition's whole runs spend on average."""
    return statistics.mean(spent(run["curve"][-1], budget) for run in runs)
