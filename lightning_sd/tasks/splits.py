"""Make splits that share no question."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.tasks.base import Split

_PRECEDENCE: tuple[Split, ...] = ("test", "val", "train")
"""A question that occurs in several splits is kept in the first of these."""


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split."""

    table: Any
    """A ``datasets.Dataset``."""
    indices: tuple[int, ...]
    """Indices of the rows in ``table``, in order."""
    source: str
    """Name of the split that holds ``table``, part of the default question id."""


def normalize_question(question: str) -> str:
    """Normalize case and white space. Questions with equal results count as the same."""
    return " ".join(question.split()).casefold()


def hash_to_fraction(question: str, seed: int) -> float:
    """Map a question and a seed to a number in [0, 1), uniformly distributed over questions.

    Example:
        >>> 0 <= hash_to_fraction("What is 1+1?", 0) < 1
        True
        >>> hash_to_fraction("a  B", 0) == hash_to_fraction("A b", 0)
        True
    """
    digest = hashlib.sha256(f"{seed}\n{normalize_question(question)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def make_disjoint_splits(
    tables: Mapping[str, Any],
    questions: Mapping[str, Sequence[str]],
    *,
    fractions: Mapping[str, float],
    sizes: Mapping[str, int],
    seed: int,
) -> dict[Split, SplitRows]:
    """Make three splits that share no question.

    Args:
        tables: A ``datasets.Dataset`` per split. ``train`` is required.
        questions: Question of each row, per split.
        fractions: Share of the training questions that becomes a missing split, per split.
        sizes: Largest number of rows per split. The first rows are kept.
        seed: Selects the held-out questions.

    Returns:
        The three splits. All rows of a repeated question are in the same split.

    Raises:
        ValueError: A split has no rows, or the fractions leave no training rows.
    """
    missing = [split for split in _PRECEDENCE if split not in tables]
    held_out = sum(fractions.get(split, 0.0) for split in missing)
    if not 0 <= held_out < 1 or any(f < 0 for f in fractions.values()):
        raise ValueError(
            f"val_fraction, test_fraction={dict(fractions)}: use shares of at least 0 with a sum "
            "below 1, which leave some questions to train on."
        )
    result: dict[Split, SplitRows] = {}
    taken: set[str] = set()
    for split in _PRECEDENCE:
        home = split if split in tables else "train"
        wanted = _select_rows(questions[home], split, home, missing, fractions, seed)
        kept = [i for i in wanted if normalize_question(questions[home][i]) not in taken]
        if len(kept) < len(wanted):
            rank_zero_info(
                f"Removed {len(wanted) - len(kept)} {split} rows that repeat a question of "
                "another split."
            )
        taken.update(normalize_question(questions[home][i]) for i in kept)
        result[split] = SplitRows(tables[home], tuple(kept[: sizes.get(split)]), home)
    _refuse_empty(result)
    return result


def _select_rows(
    questions: Iterable[str],
    split: Split,
    home: str,
    missing: list[Split],
    fractions: Mapping[str, float],
    seed: int,
) -> list[int]:
    """Return the indices of the rows of the home table that belong to the split."""
    start = 0.0
    bounds: dict[str, tuple[float, float]] = {}
    for cut in missing:
        bounds[cut] = (start, start + fractions.get(cut, 0.0))
        start = bounds[cut][1]
    low, high = bounds.get(split, (start, 1.0) if home == "train" else (0.0, 1.0))
    return [i for i, text in enumerate(questions) if low <= hash_to_fraction(text, seed) < high]


def _refuse_empty(splits: Mapping[Split, SplitRows]) -> None:
    for split in get_args(Split):
        if not splits[split].indices:
            remedy = "lower the fractions" if split == "train" else f"raise {split}_fraction"
            raise ValueError(
                f"The {split} split has no questions. Map one with `splits`, or {remedy}."
            )
