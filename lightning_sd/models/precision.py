"""Warn about optimizer settings that a precision turns into no training at all."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

ADAPTIVE = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Lion", "AdamW8bit", "PagedAdamW8bit")
"""Optimizers that move each weight by about the learning rate in a step."""
SAMPLE = 4096
"""Weights per parameter that are looked at."""


def check_update_size(optimizer: Optimizer) -> None:
    """Warn if most updates are smaller than half the spacing of half-precision weights.

    bfloat16 has 8 significant bits: the next number after 0.02 is 0.0001 away, so that adding a
    learning rate of 1e-6 leaves the weight unchanged.

    Args:
        optimizer: The optimizer. Only Adam and its relatives are checked, because their step is
            about the learning rate for every weight. Those that keep what rounding cuts off
            (``kahan_sum`` of optimi) or round at random (torchao) are not.
    """
    random = getattr(optimizer, "bf16_stochastic_round", False)
    if type(optimizer).__name__ not in ADAPTIVE or random:
        return
    lost, total, rate, kind = 0, 0, 0.0, None
    for group in optimizer.param_groups:
        for parameter in () if group.get("kahan_sum") else group["params"]:
            if parameter.dtype in (torch.bfloat16, torch.float16):
                unmoved = _find_unmoved(parameter, float(group["lr"]))
                lost, total = lost + int(unmoved.sum()), total + len(unmoved)
                rate, kind = float(group["lr"]), parameter.dtype
    if total and lost > total / 2:
        name = str(kind).removeprefix("torch.")
        rank_zero_warn(
            f"{lost / total:.0%} of the {name} weights cannot move by a learning rate of {rate:g}: "
            "the update is less than half the distance to the next number. Use dtype: float32 with "
            "trainer.precision='bf16-mixed', LoRA with dtype float32, or an optimizer with Kahan "
            "summation (optimi.AdamW of torch-optimi) or stochastic rounding (torchao)."
        )


def _find_unmoved(parameter: Tensor, rate: float) -> Tensor:
    """Return for a sample of the weights whether adding the rate, or minus it, changes nothing."""
    flat = parameter.detach().reshape(-1)
    weights = flat[:: max(1, len(flat) // SAMPLE)]
    up, down = (weights.float() + rate).to(flat.dtype), (weights.float() - rate).to(flat.dtype)
    return (up == weights) & (down == weights)


def check_fused_clipping(optimizer: Optimizer, precision: str, clip: Any) -> None:
    """Refuse gradient clipping with a fused optimizer under mixed precision.

    Lightning's plugin cannot clip there, because a fused optimizer unscales gradients itself.

    Args:
        optimizer: The optimizer.
        precision: The trainer's precision, such as ``bf16-mixed``.
        clip: ``trainer.gradient_clip_val``; None or 0 does not clip.

    Raises:
        ValueError: Clipping, a fused optimizer and mixed precision together.
    """
    fused = any(group.get("fused") for group in optimizer.param_groups)
    if fused and clip and precision.endswith("-mixed"):
        raise ValueError(
            f"{type(optimizer).__name__}(fused=True) with gradient_clip_val={clip} and "
            f"precision={precision!r}: Lightning cannot clip the gradients of a fused optimizer. "
            "Use fused=False, or no clipping."
        )
