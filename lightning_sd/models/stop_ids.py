"""Token ids that end a completion."""

from __future__ import annotations

from typing import Any

from torch import nn


def stop_ids(model: nn.Module, tokenizer: Any) -> list[int]:
    """Token ids that end a completion: the generation config's and the tokenizer's.

    Raises:
        ValueError: There is none.
    """
    config = getattr(model, "generation_config", None)
    found = getattr(config, "eos_token_id", None)
    ids = set(found) if isinstance(found, (list, tuple)) else {found}
    ids.add(tokenizer.eos_token_id)
    result = sorted(i for i in ids if i is not None)
    if not result:
        raise ValueError("Neither the generation config nor the tokenizer names an eos token.")
    return result
