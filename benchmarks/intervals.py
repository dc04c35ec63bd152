"""Bootstrap intervals over seeds and questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """A mean and its 95% bootstrap interval."""

    mean: float
    low: float
    high: float

    def text(self, scale: float = 100.0, digits: int = 1) -> str:
        """Format as ``94.7 [93.1, 96.0]``."""
        m, a, b = (f"{scale * value:.{digits}f}" for value in self)
        return f"{m} [{a}, {b}]"


def interval(values: Sequence[Sequence[float]], *, draws: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean over seeds and questions; both are resampled with replacement.

    Args:
        values: ``[seeds][questions]``, the same questions in each seed.
        draws: Bootstrap samples.
        seed: Seed of the bootstrap.
    """
    table = torch.tensor(values, dtype=torch.float64)
    means = _bootstrap(table, draws, seed)
    return Interval(table.mean().item(), *_bounds(means))


def difference(
    a: Sequence[Sequence[float]],
    b: Sequence[Sequence[float]],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return mean(a) - mean(b) on the same questions; seeds are resampled separately.

    Args:
        a: ``[seeds][questions]``.
        b: ``[seeds][questions]``, the same questions as in ``a``.
        draws: Bootstrap samples.
        seed: Seed of the bootstrap.
    """
    first, second = (torch.tensor(x, dtype=torch.float64) for x in (a, b))
    generator = torch.Generator().manual_seed(seed)
    gaps = []
    for _ in range(draws):
        questions = torch.randint(first.shape[1], (first.shape[1],), generator=generator)
        rows = (torch.randint(len(x), (len(x),), generator=generator) for x in (first, second))
        one, two = (x[r][:, questions].mean() for x, r in zip((first, second), rows, strict=True))
        gaps.append(one - two)
    return Interval((first.mean() - second.mean()).item(), *_bounds(torch.stack(gaps)))


def _bootstrap(table: Tensor, draws: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(draws):
        rows = torch.randint(len(table), (len(table),), generator=generator)
        questions = torch.randint(table.shape[1], (table.shape[1],), generator=generator)
        means.append(table[rows][:, questions].mean())
    return torch.stack(means)


def _bounds(values: Tensor) -> tuple[float, float]:
    low, high = torch.quantile(values, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
