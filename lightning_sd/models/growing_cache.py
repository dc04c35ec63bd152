"""A key-value cache for decoding that does not copy its content for every token.

transformers' own layer concatenates its keys and values with the new ones at each step, which
copies all of them.
"""

from __future__ import annotations

from typing import Any

import torch
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
        if self._memory is not None:
            memory = self._memory[0]
            rows = torch.arange(len(memory), device=memory.device)
            self.reorder_cache(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows with the given indices."""
        self.reorder_cache(indices)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows with the given indices, in their order.

        If the last rows only fill the places of rows that leave, as in sampling, nothing else is
        copied: each row that leaves costs at most one row.
        """
        if self._memory is None:
            return
        length, count = self.get_seq_length(), len(beam_idx)
        moved = (beam_idx != torch.arange(count, device=beam_idx.device)).nonzero().squeeze(1)
        sources = beam_idx[moved]
        if bool((sources >= count).all()):
            for memory in self._memory:
                memory[moved, ..., :length, :] = memory[sources, ..., :length, :]
            self._memory = (self._memory[0][:count], self._memory[1][:count])
        else:
            keys, values = (memory[..., :length, :][beam_idx] for memory in self._memory)
            self._memory = (keys, values)
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
