"""Speed up linear layers for decoding on a CPU with weights in oneDNN's blocked layout.

A decoding step multiplies every weight by a few rows only. oneDNN reads its blocked layout nearly
twice as fast as torch reads the plain one, so one copy of the weights pays off within a rollout.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

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
    layers = [layer for layer in model.modules() if _can_pack(layer)] if _has_kernels() else []
    if sum(layer.weight.nbytes for layer in layers) > MAX_BYTES:
        layers = []
    try:
        for layer in layers:
            vars(layer)["forward"] = _make_packed_forward(layer, rows)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _has_kernels() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _kernels_work()
    )


@functools.cache
def _kernels_work() -> bool:
    """Return whether torch's packed product equals its plain one, by one small product.

    The kernels are not public. torch's own compiler uses them, but another release may change them.
    """
    weight = torch.linspace(-1, 1, 48 * 32).view(48, 32)
    x, bias = weight[:3] + 1, torch.linspace(0, 1, 48)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
        found = torch.ops.mkldnn._linear_pointwise.default(x, packed, bias, "none", [], "")
        torch.testing.assert_close(found, nn.functional.linear(x, weight, bias))
    except Exception as error:
        rank_zero_warn(
            f"torch {torch.__version__} has other oneDNN kernels than this package knows, so that "
            f"rollouts on a CPU multiply with plain weights, which is slower ({error!r})."
        )
        return False
    return True


def _can_pack(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        type(layer) is nn.Linear
        and "forward" not in vars(layer)  # already replaced by other code
        and not isinstance(layer.weight, DTensor)  # gathered only while its layer runs
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and layer.weight.numel() >= MIN_ELEMENTS
    )


def _make_packed_forward(layer: Any, rows: int) -> Callable[[Tensor], Tensor]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    # The kernel reads a bias with gaps, such as a column of a matrix, as if it had none.
    bias = None if layer.bias is None else layer.bias.detach().contiguous()

    def forward(x: Tensor) -> Tensor:
        output: Tensor = multiply(x, weight, bias, "none", [], "")
        return output

    return forward
