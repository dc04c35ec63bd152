"""Intervals that hold with few training seeds, and Holm's correction.

Training seeds are the unit: a run's accuracy, or a paired difference of two runs with the same
seed, is one number. The interval is Student's, so it widens as it should with two to five seeds,
where resampling seeds gives intervals that are too narrow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

_T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""The 97.5% quantile of Student's distribution by degrees of freedom."""


class Interval(NamedTuple):
    """A mean with its 95% interval."""

    value: float
    low: float
    high: float

    def format(self) -> str:
        """Write percent, as ``value [low, high]``."""
        # Rounded twice, as in :meth:`.Estimate.format`.
        value, low, high = (f"{round(100 * end, 7):.1f}" for end in self)
        return f"{value} [{low}, {high}]"


def student_interval(values: Sequence[float]) -> Interval:
    """Return the mean of one number per seed with Student's 95% interval.

    Raises:
        ValueError: Fewer than 2 values or more than 10.

    Example:
        >>> student_interval([0.0, 0.1]).format()
        '5.0 [-58.5, 68.5]'
    """
    if len(values) - 1 not in _T_95:
        raise ValueError(f"values: {len(values)} numbers; give 2 to 10.")
    mean = statistics.mean(values)
    half = _T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the mean difference of runs that share their seed, with its interval."""
    return student_interval([a - b for a, b in zip(first, second, strict=True)])


def pair_seeds(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> Interval:
    """Return :func:`paired_interval` of the seeds' means over questions.

    Args:
        first: Values ``[seeds][questions]``.
        second: Values of the other runs, the same seeds in the same order.
    """
    return paired_interval(*([statistics.mean(row) for row in table] for table in (first, second)))


def format_paired_seeds(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> str:
    """Format :func:`pair_seeds`, or say why there is no interval, as in an unfinished grid."""
    if len(first) != len(second):
        return f"{len(first)} and {len(second)} seeds"
    return pair_seeds(first, second).format() if len(first) > 1 else "one seed"


def sign_flip_test(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean difference by exact sign flips.

    With n differences it cannot be below 2 / 2^n: 0.0625 at five, 0.002 at ten.
    """
    observed = abs(sum(differences))
    count = 2 ** len(differences)
    extreme = 0
    for flips in range(count):
        total = sum(-d if flips >> i & 1 else d for i, d in enumerate(differences))
        extreme += abs(total) >= observed * (1 - 1e-12)
    return extreme / count


def correct_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's method.

    Example:
        >>> correct_by_holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted
