"""Measure repeated text: a model that loops writes the same runs of tokens again."""

from __future__ import annotations

from collections.abc import Sequence

RUN_TOKENS = 8
"""Tokens per run, about six words. In healthy text such runs are rarely repeated."""


def count_repeated_runs(ids: Sequence[int], length: int = RUN_TOKENS) -> tuple[int, int]:
    """Count the runs of tokens in a completion that occur earlier in it, and all its runs.

    Args:
        ids: Token ids of the completion.
        length: Tokens per run.

    Example:
        >>> count_repeated_runs([1, 2, 1, 2, 1, 2], length=2)
        (3, 5)
    """
    runs = [tuple(ids[i : i + length]) for i in range(len(ids) - length + 1)]
    return len(runs) - len(set(runs)), len(runs)
