"""Find the token ids that end a completion."""

from __future__ import annotations

from typing import Any

from torch import nn


def find_stop_ids(model: nn.Module, tokenizer: Any) -> list[int]:
    """Return the end-of-sequence ids of the generation config and of the tokenizer, sorted.

    Raises:
        ValueError: Neither of them names one.
    """
    config = getattr(model, "generation_config", None)
    configured = getattr(config, "eos_token_id", None)
    ids = set(configured) if isinstance(configured, (list, tuple)) else {configured}
    ids.add(tokenizer.eos_token_id)
    result = sorted(i for i in ids if i is not None)
    if not result:
        raise ValueError(
            "Neither the model's generation config nor the tokenizer names an end-of-sequence "
            "token: set tokenizer.eos_token."
        )
    return result
