"""Hand LoRA adapters to a vLLM engine without merging them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from lightning_sd.models.fingerprint import fingerprint_tensors
from lightning_sd.rollout.vllm_weights import is_adapter, read_active_adapters

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks for which vLLM reserves memory."""


class AdapterFiles:
    """Writes a model's adapter to a file for each version of it; vLLM reads adapters from files.

    Args:
        model: A transformers model in a peft wrapper.

    Raises:
        ValueError: The model has no adapter, or one that vLLM does not apply.
    """

    def __init__(self, model: nn.Module) -> None:
        self.rank = check_swappable(model)
        self._folder = tempfile.TemporaryDirectory(prefix="vllm-adapters-")
        self._written: str | None = None
        self._number = 0

    def list_settings(self) -> dict[str, Any]:
        """Return the arguments of ``vllm.LLM`` that make room for one adapter."""
        rank = next(size for size in RANKS if size >= self.rank)
        return {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}

    def write(self, model: Any) -> Any:
        """Write the adapter if it changed.

        Args:
            model: The model that this object was made for.

        Returns:
            vLLM's ``LoRARequest`` for it; None while the model's adapters are disabled.
        """
        if not any(read_active_adapters(model)):
            return None
        from vllm.lora.request import LoRARequest

        state = {name: p for name, p in model.state_dict().items() if is_adapter(name)}
        version = fingerprint_tensors(state)
        if version != self._written:
            # A new number for each version: vLLM keeps the adapters that it has read by number.
            self._number += 1
            model.save_pretrained(
                self._folder.name,
                selected_adapters=[model.active_adapter],
                save_embedding_layers=False,
            )
            self._written = version
        name = model.active_adapter
        path = Path(self._folder.name) / ("" if name == "default" else name)
        return LoRARequest(str(self._number), self._number, str(path))


def check_swappable(model: Any) -> int:
    """Refuse adapters that vLLM would leave out or apply in another way.

    Args:
        model: The model.

    Returns:
        The largest rank of the active adapter.

    Raises:
        ValueError: There is no adapter, or it has parts that vLLM does not apply.
    """
    configs = getattr(model, "peft_config", None)
    if not configs:
        raise ValueError(
            "swap_adapters=true: the student has no LoRA adapter. Set `lora` of its model, or "
            "swap_adapters to false."
        )
    config = configs[model.active_adapter]
    parts = ("use_dora", "modules_to_save", "target_parameters", "trainable_token_indices")
    unsupported = [part for part in parts if getattr(config, part, None)]
    rank: int = max([config.r, *config.rank_pattern.values()])
    if unsupported or rank > RANKS[-1]:
        reason = f"{unsupported[0]} is set" if unsupported else f"r={rank} is above {RANKS[-1]}"
        raise ValueError(
            f"swap_adapters=true: vLLM does not apply this adapter ({reason}). Set swap_adapters "
            "to false, and it is merged instead."
        )
    return rank
