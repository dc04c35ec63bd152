"""A key-value cache for decoding that does not copy its content for every token.

transformers' own layer concatenates its keys and values with the new ones at each step, which
copies all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

LEAST_ROOM = 64
"""Least number of tokens by which a full layer grows; it grows by a quarter if that is more."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values ``[rows, heads, tokens, size]`` in memory with room for more.

    ``keys`` and ``values`` are views of the filled part. Only for use without gradients, because
    new tokens are written into memory that earlier results may share.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._memory: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append new tokens; return all keys and all values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._memory = None
        old = self.get_seq_length()
        length = old + key_states.shape[-2]
        if self._memory is None or self._memory[0].shape[-2] < length:
            room = length + max(LEAST_ROOM, length // 4)
            keys, values = (self.keys, key_states), (self.values, value_states)
            self._memory = (_enlarge(*keys, room), _enlarge(*values, room))
        for memory, new in zip(self._memory, (key_states, value_states), strict=True):
            memory[..., old:length, :] = new
        return self._set_views(length)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self._change_rows(lambda memory: memory.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows with the given indices."""
        self._change_rows(lambda memory: memory[indices])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Reorder the rows."""
        self._change_rows(lambda memory: memory[beam_idx])

    def _change_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        if self._memory is not None:
            length = self.get_seq_length()
            self._memory = (change(self._memory[0]), change(self._memory[1]))
            self._set_views(length)

    def _set_views(self, length: int) -> tuple[Tensor, Tensor]:
        assert self._memory is not None
        keys, values = (memory[..., :length, :] for memory in self._memory)
        self.keys, self.values = keys, values
        return keys, values


def _enlarge(old: Tensor | None, new: Tensor, room: int) -> Tensor:
    """Allocate memory for ``room`` tokens and copy the old ones to its beginning."""
    memory = new.new_empty(*new.shape[:-2], room, new.shape[-1])
    if old is not None and old.numel():
        memory[..., : old.shape[-2], :] = old
    return memory


def make_growing_cache(config: Any) -> DynamicCache:
    """Make an empty cache for decoding without gradients.

    Only layers of full attention are replaced; layers with sliding windows or linear attention are
    transformers' own.

    Args:
        config: The model's configuration; None makes layers of full attention only.
    """
    cache = DynamicCache(config=config)
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = GrowingLayer
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
