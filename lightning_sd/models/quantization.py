"""Load a model with 4-bit or 8-bit weights (bitsandbytes), and prepare it for training."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from lightning_sd.models.extras import require_extra

Quantization = Literal["nf4", "int8"]


def make_quantization_config(kind: Quantization, dtype: str) -> Any:
    """Make the ``quantization_config`` argument of ``from_pretrained``.

    Args:
        kind: Format of the weights.
        dtype: Name of the torch dtype in which 4-bit weights are multiplied.
    """
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def prepare_quantized(model: nn.Module) -> nn.Module:
    """Prepare a quantized model for training with adapters.

    Raises:
        ImportError: peft is not installed.
    """
    require_extra("peft", "lora")
    from peft import prepare_model_for_kbit_training

    prepared: nn.Module = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    keep_differentiable(prepared)
    return prepared


def keep_differentiable(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights for inference, in place.

    On CPUs with AVX512-BF16 the first forward pass in eval mode would pack them for good. Packed
    weights pass no gradient on, and training would only log a warning.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - for mypy
