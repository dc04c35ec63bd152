"""Add low-rank adapters to a model (peft)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from lightning_sd.models.extras import require_extra


@dataclass(frozen=True)
class LoRA:
    """Settings of low-rank adapters. The frozen teacher is then the model without adapters."""

    r: int = 16
    """Rank."""
    alpha: int = 32
    """Scale: the update is multiplied by ``alpha / r``."""
    dropout: float = 0.0
    """Dropout of the adapter's input. It adds noise to the student's distribution: keep it at 0."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: ``all-linear`` or a list of module name endings."""


def add_lora(model: nn.Module, lora: LoRA) -> nn.Module:
    """Freeze a model and add trainable adapters to it.

    Raises:
        ImportError: peft is not installed.
    """
    require_extra("peft", "lora")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    peft_model: nn.Module = get_peft_model(model, config)
    return peft_model
