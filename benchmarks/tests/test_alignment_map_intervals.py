"""The alignment map's intervals and tests for few seeds."""

from __future__ import annotations

import math

import pytest

from benchmarks.alignment_map.coverage import measure_coverage
from benchmarks.alignment_map.intervals import (
    correct_by_holm,
    format_paired_seeds,
    pair_seeds,
    paired_interval,
    sign_flip_test,
    student_interval,
)


def test_student_interval_of_five_seeds():
    # Worked by hand: mean 3, standard deviation sqrt(2.5), t = 2.776 with 4 degrees of freedom.
    interval = student_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776 * math.sqrt(2.5 / 5)
    assert interval == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert paired_interval([2.0, 4.0], [1.0, 3.0]) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="1 numbers"):
        student_interval([1.0])


def test_sign_flips_are_exact():
    assert sign_flip_test([1.0] * 5) == 2 / 32
    assert sign_flip_test([1.0, -1.0]) == 1.0


def test_holm():
    assert correct_by_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_by_holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_bootstrap_is_too_narrow_at_two_seeds_and_student_is_not():
    bootstrap, student = measure_coverage(2, 0.03, studies=60)
    assert bootstrap < 0.9 < student


def test_seeds_are_paired_by_their_means_over_questions():
    first, second = [[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.5, 0.5]]
    # Both seeds differ by 0.5, so the interval has no width.
    assert pair_seeds(first, second) == (0.5, 0.5, 0.5)


def test_seeds_that_cannot_be_paired_are_named():
    assert format_paired_seeds([[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.5, 0.5]]).startswith(
        "50.0 ["
    )
    assert format_paired_seeds([[1.0]], [[0.0]]) == "one seed"
    assert format_paired_seeds([[1.0], [1.0]], [[0.0]]) == "2 and 1 seeds"
