"""Add low-rank adapters to a model (peft)."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from torch import nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.extras import require_extra

log = logging.getLogger(__name__)

ROUTERS = ("gate", "router")
"""Names of the modules that send tokens to experts."""

DIRECTLY_READ = {
    ("A_log", "D", "out_proj"): ("out_proj", "conv1d"),
    ("correction_coefs", "prediction_coefs"): ("correction_coefs",),
}
"""Layers whose weights are read without a call, by attributes of the module that holds them."""

REVERSIBLE = ("reformer",)
"""Model types whose layers compute gradients only if their input requires one."""


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
    target_parameters: list[str] | None = None
    """Endings of weight names that get an adapter although they belong to no linear layer, such as
    the fused experts ``["experts.gate_up_proj", "experts.down_proj"]``."""


def add_lora(model: nn.Module, lora: LoRA) -> nn.Module:
    """Freeze a model and add trainable adapters to it; log which layers get one.

    With ``all-linear``, two kinds of layers get none: those whose weights are read directly (output
    projections of Mamba layers, correction coefficients of Gemma 3n), and routers that return more
    than a linear layer does (Llama 4, Phi-MoE).

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
        target_parameters=lora.target_parameters,
        exclude_modules=_list_excluded(model) if lora.target_modules == "all-linear" else None,
        task_type="CAUSAL_LM",
    )
    fused = _list_fused_experts(model)
    peft_model: nn.Module = get_peft_model(model, config)
    if getattr(getattr(model, "config", None), "model_type", None) in REVERSIBLE:
        get_causal_lm(peft_model).enable_input_require_grads()
    report_adapters(peft_model, fused if lora.target_parameters is None else [])
    return peft_model


@rank_zero_only
def report_adapters(model: nn.Module, fused: list[str]) -> None:
    """Log which layers have an adapter, and warn about experts and routers.

    Args:
        model: A model with adapters.
        fused: Names of the fused expert weights that have none.
    """
    names = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    kinds = Counter(name.rpartition(".")[2] for name in names)
    log.info("LoRA adapts %s.", ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())))
    if fused:
        rank_zero_warn(
            f"LoRA: the experts have no adapters, because their weights are fused ({fused[0]}). To "
            f"adapt them, set LoRA(target_parameters={sorted(map(_shorten, fused))})."
        )
    routers = sorted({name for name in map(_shorten, names) if {*ROUTERS} & {*name.split(".")}})
    if routers:
        rank_zero_warn(
            f"LoRA adapts the routers of the experts as well ({', '.join(routers)}). To leave them "
            "frozen, list the other layers in LoRA(target_modules=[...])."
        )


def _shorten(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _list_fused_experts(model: nn.Module) -> list[str]:
    """List one name per kind of fused expert weight, ``[experts, in, out]``."""
    names = {
        _shorten(name): name
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and "expert" in name
    }
    return list(names.values())


def _list_excluded(model: nn.Module) -> list[str]:
    """List the linear layers to which an adapter would do nothing, or which it would break."""
    direct = [
        f"{name}.{part}"
        for name, module in model.named_modules()
        for attributes, parts in DIRECTLY_READ.items()
        if all(hasattr(module, attribute) for attribute in attributes)
        for part in parts
    ]
    routers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and type(module).__module__.startswith("transformers.models")
        and type(module).forward is not nn.Linear.forward
        and name.rpartition(".")[2] in ROUTERS
    ]
    return direct + routers
