"""Bootstrap intervals for means over questions, and over training seeds and questions.

Rollouts of one question depend on each other, so questions are resampled and not rollouts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DRAWS = 2000
"""Resamples; each end of a 95% interval then rests on about 50 of them."""
SEED_DRAWS = 10_000
"""Resamples where training seeds are drawn as well."""

Part = tuple[float, float]
"""What one item adds to a mean: its total, and its number of items."""
Table = Sequence[Sequence[float]]
"""Values ``[seeds][questions]``, the same questions in the same order for each seed."""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two means, with its 95% interval."""

    value: float | None
    """None if there was nothing to average; the ends are then None as well."""
    low: float | None
    high: float | None
    number: int
    """Items (attempts, tokens ...) that the mean is over."""
    questions: int
    """Questions that these items belong to; the interval rests on them."""

    def ends(self) -> tuple[float, float, float]:
        """Return the value and the two ends of its interval.

        Raises:
            ValueError: There was nothing to average.
        """
        if self.value is None or self.low is None or self.high is None:
            raise ValueError("There is no estimate: nothing was averaged.")
        return self.value, self.low, self.high

    def format(self, scale: float = 100.0, digits: int = 1) -> str:
        """Write the value and its interval as ``value [low, high]``.

        Args:
            scale: Factor for all three numbers; 100 turns shares into percent.
            digits: Digits after the decimal point.

        Returns:
            The text, or ``none`` if there was nothing to average.

        Example:
            >>> Estimate(0.947, 0.931, 0.96, number=400, questions=100).format()
            '94.7 [93.1, 96.0]'
        """
        if self.value is None:
            return "none"
        # Rounded twice: sums differ in their last bits from processor to processor, and an end that
        # lies halfway between two decimals must be written the same everywhere.
        value, low, high = (f"{round(scale * end, digits + 6):.{digits}f}" for end in self.ends())
        return f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class Sums:
    """What a mean is made of: one total and one number of items per question."""

    totals: Sequence[float]
    counts: Sequence[float]


def sum_per_question(items: Iterable[tuple[str, Part | None]], questions: Sequence[str]) -> Sums:
    """Add up the parts of each question.

    Args:
        items: Pairs of a question's id and what one item of it adds; None adds nothing.
        questions: Ids of all questions, in the order of the result.

    Returns:
        One total and count per question; both are 0 for a question without items.

    Example:
        >>> sum_per_question([("a", (1.0, 2)), ("b", None), ("a", (0.5, 1))], ["a", "b"])
        Sums(totals=[1.5, 0.0], counts=[3.0, 0.0])
    """
    place: Mapping[str, int] = {name: i for i, name in enumerate(questions)}
    totals, counts = [0.0] * len(questions), [0.0] * len(questions)
    for question, part in items:
        if part is not None:
            totals[place[question]] += part[0]
            counts[place[question]] += part[1]
    return Sums(totals, counts)


class Bootstrap:
    """Resamples questions with replacement; every estimate uses the same resamples.

    Because estimates share the resamples, a difference is paired: both of its means are over the
    same questions.

    Args:
        questions: Number of questions.
        draws: Number of resamples.
        seed: Seed of the resamples.
    """

    def __init__(self, questions: int, draws: int = DRAWS, seed: int = 0) -> None:
        (counts,) = _resample((questions,), draws, seed)
        # The first row is the sample itself.
        self._counts = torch.cat([torch.ones_like(counts[:1]), counts])

    def mean(self, sums: Sums) -> Estimate:
        """Estimate the mean over all items of all questions.

        Args:
            sums: One entry per question.

        Example:
            >>> estimate = Bootstrap(2).mean(Sums(totals=[1, 3], counts=[2, 2]))
            >>> estimate.value, estimate.low, estimate.high, estimate.number
            (1.0, 0.5, 1.5, 4)
        """
        return _summarize(self._means(sums), sums)

    def difference(self, first: Sums, second: Sums) -> Estimate:
        """Estimate the first mean minus the second.

        Args:
            first: One entry per question; ``number`` and ``questions`` of the result are its.
            second: One entry per question, the same questions in the same order.
        """
        return _summarize(self._means(first) - self._means(second), first)

    def ratio(self, first: Sums, second: Sums) -> Estimate:
        """Estimate the first mean divided by the second.

        Args:
            first: One entry per question; ``number`` and ``questions`` of the result are its.
            second: One entry per question, the same questions in the same order.
        """
        return _summarize(self._means(first) / self._means(second), first)

    def _means(self, sums: Sums) -> Tensor:
        totals = torch.tensor(sums.totals, dtype=torch.float64)
        counts = torch.tensor(sums.counts, dtype=torch.float64)
        # 0 / 0 is nan: a resample without any such item has no mean.
        return (self._counts @ totals) / (self._counts @ counts)


def mean_over_seeds(values: Table, *, draws: int = SEED_DRAWS, seed: int = 0) -> Estimate:
    """Estimate a mean over training seeds and questions; both are resampled.

    Args:
        values: ``[seeds][questions]``.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Example:
        >>> mean_over_seeds([[1.0, 1.0], [0.0, 0.0]]).format(scale=1)
        '0.5 [0.0, 1.0]'
    """
    table = torch.tensor(values, dtype=torch.float64)
    seeds, questions = _resample(tuple(table.shape), draws, seed)
    means = ((seeds @ table) * questions).sum(dim=1) / table.numel()
    return _summarize_table(table.mean(), means, table)


def difference_over_seeds(
    first: Table, second: Table, *, draws: int = SEED_DRAWS, seed: int = 0
) -> Estimate:
    """Estimate the mean of ``first`` minus the mean of ``second`` on the same questions.

    Questions are resampled for both together, seeds for each on its own: two methods share the
    test questions, but their training runs have nothing in common.

    Args:
        first: ``[seeds][questions]``.
        second: ``[seeds][questions]``; the number of seeds may differ.
        draws: Number of resamples.
        seed: Seed of the resamples.

    Example:
        >>> difference_over_seeds([[1.0, 0.5]], [[0.5, 0.0]]).format(scale=1)
        '0.5 [0.5, 0.5]'
    """
    one, two = (torch.tensor(table, dtype=torch.float64) for table in (first, second))
    questions, *seeds = _resample((one.shape[1], len(one), len(two)), draws, seed)
    means = [
        ((drawn @ table) * questions).sum(dim=1) / table.numel()
        for drawn, table in zip(seeds, (one, two), strict=True)
    ]
    return _summarize_table(one.mean() - two.mean(), means[0] - means[1], one)


def _resample(sizes: Sequence[int], draws: int, seed: int) -> list[Tensor]:
    """Draw from each axis with replacement, axis after axis within each draw.

    Returns:
        ``[draws, size]`` per axis: how often each element was drawn, as float64.
    """
    generator = torch.Generator().manual_seed(seed)
    # One call for all axes: evenly drawn below a multiple of a size is, modulo the size, even too.
    drawn = torch.randint(math.lcm(*sizes), (draws, sum(sizes)), generator=generator)
    counts = []
    for size, picks in zip(sizes, drawn.split(list(sizes), dim=1), strict=True):
        ones = torch.ones(draws, size, dtype=torch.float64)
        counts.append(torch.zeros_like(ones).scatter_add_(1, picks % size, ones))
    return counts


def _interval(means: Tensor) -> tuple[float, float]:
    # Without rounding, the order of summation decides how a tie such as 92.05 is printed.
    means = means.round(decimals=12)
    low, high = means.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def _summarize(means: Tensor, sums: Sums) -> Estimate:
    """Make an estimate of the sample's own mean (the first) and the means of the resamples."""
    number, questions = int(sum(sums.counts)), sum(count > 0 for count in sums.counts)
    if bool(means[0].isnan()):
        return Estimate(None, None, None, number, questions)
    return Estimate(float(means[0]), *_interval(means[1:]), number, questions)


def _summarize_table(value: Tensor, means: Tensor, table: Tensor) -> Estimate:
    return Estimate(value.item(), *_interval(means), table.numel(), table.shape[1])
