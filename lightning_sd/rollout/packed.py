"""Speed up linear layers for decoding on a CPU with weights in oneDNN's blocked layout.

A decoding step multiplies every weight by a few rows only. oneDNN reads its blocked layout nearly
twice as fast as torch reads the plain one, so one copy of the weights pays off within a rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from lightning_sd.functional.onednn import is_supported, multiply, pack

MIN_ELEMENTS = 2**16
"""Smaller weights stay in the CPU's cache, so that packing gains nothing."""
MAX_BYTES = 2**31
"""Largest size of all packed weights; larger models are not copied."""


@contextmanager
def use_packed_linears(model: nn.Module, rows: int) -> Iterator[None]:
    """Let a model's float32 linear layers on a CPU use packed copies of their weights.

    A context manager, for use without gradients and while the weights do not change. It does
    nothing on a GPU, for other dtypes, under autocast, without oneDNN, and with a warning in a
    release of torch whose kernels do not pass a check.

    Args:
        model: The model.
        rows: Approximate number of rows per product.
    """
    suits = not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    layers = [layer for layer in model.modules() if _can_pack(layer)] if suits else []
    if sum(layer.weight.nbytes for layer in layers) > MAX_BYTES:
        layers = []
    try:
        for layer in layers:
            vars(layer)["forward"] = _make_packed_forward(layer, rows)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _can_pack(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        type(layer) is nn.Linear
        and "forward" not in vars(layer)  # already replaced by other code
        and layer.weight.numel() >= MIN_ELEMENTS
        and is_supported(layer.weight)
    )


def _make_packed_forward(layer: Any, rows: int) -> Callable[[Tensor], Tensor]:
    weight = pack(layer.weight.detach(), rows)
    bias = None if layer.bias is None else layer.bias.detach().contiguous()

    def forward(x: Tensor) -> Tensor:
        return multiply(x, weight, bias)

    return forward
