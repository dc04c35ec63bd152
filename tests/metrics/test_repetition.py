"""Repeated runs of tokens, against a count by hand."""

from __future__ import annotations

import pytest

from lightning_sd.metrics.repetition import RUN_TOKENS, count_repeated_runs


@pytest.mark.parametrize(
    ("ids", "counts"),
    [
        ([], (0, 0)),
        (range(RUN_TOKENS - 1), (0, 0)),
        (range(RUN_TOKENS), (0, 1)),
        (range(100), (0, 100 - RUN_TOKENS + 1)),
        # A constant text has one run, and the rest repeat it.
        ([5] * 20, (20 - RUN_TOKENS, 20 - RUN_TOKENS + 1)),
        # A loop of 10 tokens has 10 runs.
        (list(range(10)) * 5, (43 - 10, 43)),
    ],
)
def test_runs_are_counted(ids, counts):
    assert count_repeated_runs(list(ids)) == counts
