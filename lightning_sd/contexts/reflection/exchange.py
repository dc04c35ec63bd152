"""The same state on every rank: gather what each has found, and let rank 0 decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def gathered(value: T) -> list[T]:
    """Every rank's value, in the order of the ranks. All ranks must call it, equally often.

    Args:
        value: Anything that can be pickled.
    """
    if not _several():
        return [value]
    values: list[T | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def decided(decide: Callable[[], T]) -> T:
    """What rank 0 decides, on every rank. All ranks must call it, equally often.

    Args:
        decide: Called on rank 0 alone; its result can be pickled.
    """
    if not _several():
        return decide()
    box: list[T | None] = [decide() if distributed.get_rank() == 0 else None]
    distributed.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def _several() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
