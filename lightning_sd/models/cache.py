"""Key-value caches and left padding, for decoding and for shared prompts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CALL_COST = 512
"""Cost of a forward pass beside its tokens, in tokens: what sharing or less padding must save."""
CPU_CALL_COST = 64
"""The same on a CPU, where a token takes longer: 4 to 53 tokens were measured with models of 0.4 to
268 million parameters, one thread, with and without the backward pass."""


def find_call_cost(device: torch.device) -> int:
    """Return the cost of a forward pass beside its tokens, in tokens."""
    return CPU_CALL_COST if device.type == "cpu" else CALL_COST


def get_causal_lm(model: Any) -> Any:
    """Return the transformers model inside a peft wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def get_cache_argument(model: Any) -> str:
    """Return the name of the argument for the key-value cache, which transformers 5.24 renamed."""
    return "cache" if "cache" in list_arguments(model) else "past_key_values"


def list_arguments(model: Any) -> frozenset[str]:
    """Return the names of the arguments of a model's forward pass; each token asks for them."""
    kind: Any = type(get_causal_lm(model))
    return _read_signature(kind)


@functools.cache
def _read_signature(kind: Any) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)


def make_cache(config: Any) -> Any:
    """Make an empty cache with the layer types of the model, such as sliding windows."""
    from transformers import DynamicCache

    return DynamicCache(config=config)


def left_pad(
    prompts: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Pad prompts on the left with their own first token, so that all end at the last column.

    A padding token may have an embedding of zeros, at which Gemma 3n has no gradient.

    Args:
        prompts: Token ids, at least one per prompt.
        device: The device of the result.

    Returns:
        Ids, mask and positions, each ``[prompts, longest]``. Positions are counted from each
        prompt's first token. The mask is None without padding, which allows faster attention.
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int(lengths.max())
    ids = torch.tensor([[p[0]] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = (torch.arange(longest, device=device) >= longest - lengths.unsqueeze(1)).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return ids, mask if bool((lengths < longest).any()) else None, positions
