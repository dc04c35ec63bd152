"""Estimates against loops over resampled questions."""

from __future__ import annotations

import random
import statistics

import pytest
import torch

from lightning_sd.metrics.intervals import Bootstrap, Sums, _resample

TOTALS, COUNTS = [3.0, 0.0, 1.0, 4.0, 2.0, 0.0], [4.0, 4.0, 2.0, 4.0, 3.0, 0.0]


def test_a_mean_is_over_items_and_its_interval_over_questions():
    found = Bootstrap(6, draws=20_000).mean(Sums(TOTALS, COUNTS))
    assert (found.value, found.number, found.questions) == (pytest.approx(10 / 17), 17, 5)
    draw = random.Random(1)
    means = []
    for _ in range(20_000):
        chosen = [draw.randrange(6) for _ in range(6)]
        number = sum(COUNTS[i] for i in chosen)
        if number:
            means.append(sum(TOTALS[i] for i in chosen) / number)
    ends = statistics.quantiles(means, n=40)
    assert found.low == pytest.approx(ends[0], abs=0.02)
    assert found.high == pytest.approx(ends[-1], abs=0.02)


def test_differences_are_paired():
    """A mean differs from itself by nothing, in every draw."""
    sums = Sums(TOTALS, COUNTS)
    found = Bootstrap(6).difference(sums, sums)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    more = Sums([t + 0.5 * c for t, c in zip(TOTALS, COUNTS, strict=True)], COUNTS)
    found = Bootstrap(6).difference(more, sums)
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5)


def test_nothing_to_average_is_none():
    found = Bootstrap(2).mean(Sums([0, 0], [0, 0]))
    assert (found.value, found.low, found.high, found.number, found.questions) == (
        *(None, None, None),
        *(0, 0),
    )


def test_the_same_seed_gives_the_same_interval_and_order_of_questions_little():
    sums = Sums(TOTALS, COUNTS)
    assert Bootstrap(6).mean(sums) == Bootstrap(6).mean(sums)
    turned = Bootstrap(6, draws=20_000).mean(Sums(TOTALS[::-1], COUNTS[::-1]))
    straight = Bootstrap(6, draws=20_000).mean(sums)
    assert turned.low == pytest.approx(straight.low, abs=0.02)


def test_each_axis_is_resampled_evenly_and_on_its_own():
    """Axes without a common divisor: ``randint`` draws once for all of them."""
    first, second = _resample((4, 6), 20_000, 0)
    for counts, size in ((first, 4), (second, 6)):
        assert counts.sum(1).unique().tolist() == [size]
        # The mean count of an element is 1; that of 20,000 draws has a standard error below 0.007.
        assert counts.mean(0).sub(1).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([first[:, 0], second[:, 0]]))[0, 1].abs() < 0.03
