"""Keep a context's state equal on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def gather_from_ranks(value: T) -> list[T]:
    """Return the values of all ranks, in the order of the ranks.

    Every rank must call it equally often.

    Args:
        value: This rank's value; it must be picklable.
    """
    if not _has_several_ranks():
        return [value]
    values: list[T | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def decide_on_first_rank(decide: Callable[[], T]) -> T:
    """Call a function on rank 0 and return its result on every rank.

    Every rank must call it equally often.

    Args:
        decide: The function; its result must be picklable.
    """
    if not _has_several_ranks():
        return decide()
    box: list[T | None] = [decide() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def _has_several_ranks() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
