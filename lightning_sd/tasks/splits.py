"""Splits that share no question, whatever the source looks like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.tasks.base import Split

_PRECEDENCE: tuple[Split, ...] = ("test", "val", "train")
"""A question that stands in several splits stays in the first of these."""


@dataclass(frozen=True)
class Rows:
    """Some rows of one split of the source."""

    table: Any
    """A ``datasets.Dataset``."""
    indices: tuple[int, ...]
    """Which of its rows, in order."""
    source: str
    """Name of the source's split, part of the default question id."""


def canonical(question: str) -> str:
    """What makes two questions the same: their text, but for case and white space."""
    return " ".join(question.split()).casefold()


def fraction_of(question: str, seed: int) -> float:
    """A number in [0, 1) that the question and the seed decide, evenly spread over questions.

    Example:
        >>> 0 <= fraction_of("What is 1+1?", 0) < 1
        True
        >>> fraction_of("a  B", 0) == fraction_of("A b", 0)
        True
    """
    digest = hashlib.sha256(f"{seed}\n{canonical(question)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def disjoint_splits(
    tables: Mapping[str, Any],
    column: str,
    *,
    fractions: Mapping[str, float],
    sizes: Mapping[str, int],
    seed: int,
) -> dict[Split, Rows]:
    """Make three splits that share no question.

    Args:
        tables: ``datasets.Dataset`` by split; ``train`` is there, the others may be missing.
        column: Holds the question.
        fractions: Share of the training questions that becomes each split that is missing.
        sizes: Longest allowed split; the first rows are kept.
        seed: Decides which questions are held out.

    Returns:
        The three splits. Repeated questions stay together in one of them.

    Raises:
        ValueError: A split without a single row, or fractions that leave no training rows.
    """
    missing = [split for split in _PRECEDENCE if split not in tables]
    held_out = sum(fractions.get(split, 0.0) for split in missing)
    if not 0 <= held_out < 1 or any(f < 0 for f in fractions.values()):
        raise ValueError(
            f"val_fraction, test_fraction={dict(fractions)}: shares from 0 that leave some "
            "questions to train on."
        )
    questions = {split: [str(text) for text in table[column]] for split, table in tables.items()}
    result: dict[Split, Rows] = {}
    taken: set[str] = set()
    for split in _PRECEDENCE:
        home = split if split in tables else "train"
        wanted = _assigned(questions[home], split, home, missing, fractions, seed)
        kept = [i for i in wanted if canonical(questions[home][i]) not in taken]
        if len(kept) < len(wanted):
            rank_zero_info(
                f"{len(wanted) - len(kept)} {split} rows ask what another split asks: left out."
            )
        taken.update(canonical(questions[home][i]) for i in kept)
        result[split] = Rows(tables[home], tuple(kept[: sizes.get(split)]), home)
    _refuse_empty(result)
    return result


def _assigned(
    questions: Iterable[str],
    split: Split,
    home: str,
    missing: list[Split],
    fractions: Mapping[str, float],
    seed: int,
) -> list[int]:
    """Rows of the home table that belong to the split."""
    start = 0.0
    bounds: dict[str, tuple[float, float]] = {}
    for cut in missing:
        bounds[cut] = (start, start + fractions.get(cut, 0.0))
        start = bounds[cut][1]
    low, high = bounds.get(split, (start, 1.0) if home == "train" else (0.0, 1.0))
    return [i for i, text in enumerate(questions) if low <= fraction_of(text, seed) < high]


def _refuse_empty(splits: Mapping[Split, Rows]) -> None:
    for split in get_args(Split):
        if not splits[split].indices:
            raise ValueError(
                f"The {split} split has no questions. Map one with `splits`, or give it a share "
                f"with {'val' if split == 'train' else split}_fraction."
            )
