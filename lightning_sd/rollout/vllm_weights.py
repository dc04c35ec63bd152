"""The weights of a transformers model as a vLLM engine takes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.fingerprint import fingerprint_tensors
from lightning_sd.models.sharding import is_sharded


def check_servable(model: nn.Module) -> None:
    """Refuse models whose weights vLLM cannot follow; called on every rank before any is sent.

    Args:
        model: A transformers causal language model, with peft or without.

    Raises:
        ValueError: The model is quantized, or FSDP2 shards it.
    """
    if getattr(get_causal_lm(model), "hf_quantizer", None) is not None:
        raise ValueError(
            "sampler: vLLM cannot read quantized weights of the student. Load `model` without "
            "`quantization`, or use TransformersSampler."
        )
    if is_sharded(model):
        raise ValueError(
            "sampler: vLLM needs the student's weights whole, and FSDP2 keeps them in shards. Use "
            "DDP, or TransformersSampler."
        )


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to a LoRA adapter."""
    return ".lora_" in name


def read_version(model: nn.Module, *, adapters: bool) -> tuple[Any, ...]:
    """Return a value that differs if the model's weights may have changed.

    It holds the address and the version counter of each tensor and a sample of its values, because
    writing to ``.data`` moves no counter.

    Args:
        model: The model, with peft or without.
        adapters: Whether LoRA adapters, and which of them are active, count too.
    """
    state = {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if adapters or not is_adapter(name)
    }
    tensors = tuple((tensor.data_ptr(), tensor._version) for tensor in state.values())
    active = read_active_adapters(model) if adapters else ()
    return tensors, active, fingerprint_tensors(state)


def read_active_adapters(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Return the names of the adapters that act in each layer; none where they are disabled."""
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "get_delta_weight")]
    return tuple(() if m.disable_adapters else tuple(m.active_adapters) for m in layers)


@torch.no_grad()
def iterate_weights(model: nn.Module, *, merge: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors as a checkpoint of the base model has them.

    A tied head is yielded by its own name too: vLLM on a CPU holds it as a packed copy, which would
    stay old.

    Args:
        model: The model, with peft or without.
        merge: Merge active LoRA adapters into copies, so the model's own weights never change.
            False: leave them out.
    """
    lora = {
        name: module
        for name, module in model.named_modules()
        if merge and hasattr(module, "get_delta_weight")
    }
    for name, parameter in model.state_dict(keep_vars=True).items():
        if is_adapter(name):
            continue
        tensor = parameter.detach()
        owner = name.removesuffix(".base_layer.weight")
        if owner != name and owner in lora and not lora[owner].disable_adapters:
            for adapter in lora[owner].active_adapters:
                tensor = tensor + lora[owner].get_delta_weight(adapter).to(tensor.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), tensor
