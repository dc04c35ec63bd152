"""Read raw results: runs per condition, scores per question, spent budget along a run."""

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
"""Budget columns, and their labels in figures."""


class Point(NamedTuple):
    """One validation of one run."""

    spent: float
    value: float


def group_by_condition(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group runs by condition in the order of the tables, sorted by seed."""
    return {
        name: sorted((r for r in rows if r["name"] == name), key=lambda row: row["seed"])
        for name in ORDER
        if any(row["name"] == name for row in rows)
    }


def select_scores(runs: Sequence[Row], metric: str) -> list[list[float]]:
    """Return one test metric as ``[seeds][questions]``, with aligned questions.

    Raises:
        ValueError: The seeds answered different questions.
    """
    tables = [{row["id"]: float(row[metric]) for row in run["test"]} for run in runs]
    ids = sorted(tables[0])
    for run, table in zip(runs, tables, strict=True):
        if sorted(table) != ids:
            raise ValueError(f"{run['key']}: different test questions than {runs[0]['key']}.")
    return [[table[name] for name in ids] for table in tables]


def spent_at(point: Row, budget: str) -> float:
    """Return the budget spent until a validation; 0 at step 0."""
    if budget == "tokens":
        return float(point.get("sampled", 0)) + float(point.get("written", 0))
    return float(point.get(budget, 0))


def build_curve(run: Row, start: Row | None, budget: str) -> list[Point]:
    """Return a run's validation accuracy along its budget, from the untrained solver on."""
    before = [] if start is None else start["curve"][:1]
    return [
        Point(spent_at(point, budget), read_accuracy(point)) for point in (*before, *run["curve"])
    ]


def read_accuracy(point: Row) -> float:
    """Return the validation accuracy, Avg@k."""
    return next(float(v) for name, v in point.items() if name.startswith("val/avg@"))


def best_within(points: Sequence[Point], budget: float) -> float:
    """Return the best validation within a budget; nan if there is none."""
    found = [point.value for point in points if point.spent <= budget * (1 + 1e-9)]
    return max(found, default=float("nan"))


def mean_along(points: Sequence[Point]) -> float:
    """Return the mean accuracy along a run's budget, linear between validations."""
    pairs = list(pairwise(points))
    area = sum((b.spent - a.spent) * (a.value + b.value) / 2 for a, b in pairs)
    return area / (points[-1].spent - points[0].spent)


def mean_spent(runs: Sequence[Row], budget: str) -> float:
    """Return the mean budget of a condition's complete runs."""
    return statistics.mean(spent_at(run["curve"][-1], budget) for run in runs)
