"""Linear layers for decoding on a CPU: weights laid out once for many products with few rows.

A decoding step multiplies every weight by a handful of rows. torch's own product reads the weight
as it stands, at about half of what the core can do; oneDNN's blocked layout reads it nearly twice
as fast, and one copy of the weights is soon paid for by a hundred steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

LEAST = 2**16
"""Weights of fewer numbers stay in the core's cache: nothing is gained."""
MOST = 2**31
"""Bytes of all packed weights: a larger model is not copied unasked."""


@contextmanager
def packed_linears(model: nn.Module, rows: int) -> Iterator[None]:
    """Within, the model's float32 linear layers on a CPU use packed copies of their weights.

    Only for use without gradients and while the weights stay as they are. Elsewhere (on a GPU, in
    other dtypes, under autocast, without oneDNN) nothing changes.

    Args:
        model: Any.
        rows: About how many rows a product has.
    """
    layers = [layer for layer in model.modules() if _fits(layer)] if _possible() else []
    if sum(layer.weight.nbytes for layer in layers) > MOST:
        layers = []
    try:
        for layer in layers:
            vars(layer)["forward"] = _packed(layer, rows)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _possible() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        # Not public, though torch's own compiler stands on them: another torch may lack them.
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _fits(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        type(layer) is nn.Linear
        and "forward" not in vars(layer)  # somebody else has replaced it
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and layer.weight.numel() >= LEAST
    )


def _packed(layer: Any, rows: int) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
    multiply, bias = torch.ops.mkldnn._linear_pointwise.default, layer.bias

    def forward(x: Tensor) -> Tensor:
        found: Tensor = multiply(x, weight, bias, "none", [], "")
        return found

    return forward
