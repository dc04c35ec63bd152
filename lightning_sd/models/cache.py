"""Key-value caches and left padding: what decoding and shared prompts have in common."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def causal_lm(model: Any) -> Any:
    """The transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def cache_argument(model: Any) -> str:
    """Name of the argument that takes the key-value cache: transformers 5.24 renamed it."""
    known = inspect.signature(causal_lm(model).forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def new_cache(config: Any) -> Any:
    """An empty cache that grows; it follows the model's layer types (sliding windows)."""
    from transformers import DynamicCache

    return DynamicCache(config=config)


def left_pad(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Prompts as a batch in which all end at the same column.

    Args:
        prompts: Token ids, at least one each.
        device: Where the tensors go.

    Returns:
        Ids, mask and positions, each ``[prompts, longest]``. Positions count from each prompt's own
        first token. The mask is None if nothing is padded: attention then takes its fast path.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(list(prompt))
    mask = (torch.arange(longest, device=device) >= longest - lengths.unsqueeze(1)).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return ids.to(device), mask if bool((lengths < longest).any()) else None, positions
