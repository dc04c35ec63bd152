"""Bootstrap intervals over questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DRAWS = 2000
"""Resamples; the ends of a 95% interval then rest on about 50 of them."""


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, with its 95% interval; None: there was nothing to average."""

    value: float | None
    low: float | None
    high: float | None
    number: int
    """Items (attempts, tokens ...) behind it."""
    questions: int
    """Questions that these items belong to; the interval rests on them."""


@dataclass(frozen=True)
class Sums:
    """What a mean is made of, one entry a question."""

    totals: Sequence[float]
    counts: Sequence[float]


class Bootstrap:
    """Draws questions with replacement, the same draws for every estimate.

    Attempts at one question depend on each other, so that questions are drawn and not attempts.
    Estimates share the draws: a difference is that of two means over the same questions.

    Args:
        questions: How many there are.
        draws: Resamples.
        seed: Of the draws.
    """

    def __init__(self, questions: int, draws: int = DRAWS, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        picks = torch.randint(questions, (draws, questions), generator=generator)
        ones = torch.ones(draws, questions, dtype=torch.float64)
        weights = torch.zeros_like(ones).scatter_add_(1, picks, ones)
        # The first row is the sample itself.
        self._weights = torch.cat([ones[:1], weights])

    def mean(self, sums: Sums) -> Estimate:
        """The mean over all items of all questions.

        Example:
            >>> found = Bootstrap(2).mean(Sums(totals=[1, 3], counts=[2, 2]))
            >>> found.value, found.low, found.high, found.number
            (1.0, 0.5, 1.5, 4)
        """
        return _estimate(self._means(sums), sums)

    def difference(self, first: Sums, second: Sums) -> Estimate:
        """The first mean minus the second; ``number`` and ``questions`` are the first's."""
        return _estimate(self._means(first) - self._means(second), first)

    def _means(self, sums: Sums) -> Tensor:
        totals = torch.tensor(sums.totals, dtype=torch.float64)
        counts = torch.tensor(sums.counts, dtype=torch.float64)
        # 0 / 0 is nan: a draw that caught no question with such items has no mean.
        return (self._weights @ totals) / (self._weights @ counts)


def _estimate(means: Tensor, sums: Sums) -> Estimate:
    number, questions = int(sum(sums.counts)), sum(count > 0 for count in sums.counts)
    if bool(means[0].isnan()):
        return Estimate(None, None, None, number, questions)
    ends = means[1:].nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Estimate(float(means[0]), float(ends[0]), float(ends[1]), number, questions)
