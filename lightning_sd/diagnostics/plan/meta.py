"""Build a student without its weights, from its configuration alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightning_sd.diagnostics.plan.size import ModelSize, measure_size
from lightning_sd.models import PretrainedModel
from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.lora import add_lora

QUANTIZED_BYTES = {"nf4": 0.5 + 4 / 64, "int8": 1.0}
"""Bytes per weight; nf4 keeps a float32 scale for each block of 64 weights."""


def measure_source(source: PretrainedModel, *, half: bool = False) -> ModelSize:
    """Measure the sizes of a model that is not loaded.

    Args:
        source: Names the model; only its configuration is read.
        half: Whether the weights are in half precision whatever ``source.dtype`` says.

    Raises:
        OSError: The configuration cannot be read.
    """
    if half:
        source = replace(source, dtype="bfloat16")
    model = build_on_meta(source)
    size = measure_size(model, checkpointing=source.gradient_checkpointing)
    if source.quantization is None:
        return size
    base: Any = get_causal_lm(model)
    linears = [
        module
        for name, module in base.get_decoder().named_modules()
        if isinstance(module, nn.Linear) and "lora_" not in name
    ]
    saved = sum(m.weight.nbytes for m in linears)
    packed = sum(m.weight.numel() for m in linears) * QUANTIZED_BYTES[source.quantization]
    return replace(size, weights=int(size.weights - saved + packed))


def build_on_meta(source: PretrainedModel) -> nn.Module:
    """Build a causal language model on the meta device, with its adapters.

    Args:
        source: Names the model; ``quantization`` is ignored.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    location, kwargs = source.locate()
    config = AutoConfig.from_pretrained(location, **kwargs)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(
            config.get_text_config(decoder=True), dtype=getattr(torch, source.dtype)
        )
        if source.lora is not None:
            model = add_lora(model, source.lora)
    if source.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    prepared: nn.Module = model.train()
    return prepared
