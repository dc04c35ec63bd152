"""Products by oneDNN's kernels on a CPU, which torch itself does not use in float32.

The kernels are not public. torch's own compiler uses them, but another release may change them, so
each process checks them once before their first use.
"""

from __future__ import annotations

import functools

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

TILE = 8192
"""Columns per product of :func:`multiply_into`. A product of all columns would need new memory of
the size of the logits."""


def pack(weight: Tensor, rows: int) -> Tensor:
    """Copy a weight ``[outputs, inputs]`` to oneDNN's layout, for inputs of ``rows`` rows."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x W^T + b`` without a graph; the weight may be packed.

    Args:
        x: ``[..., inputs]``.
        weight: ``[outputs, inputs]``.
        bias: ``[outputs]``, contiguous: the kernel reads one with gaps as if it had none.
    """
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return product


def multiply_into(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """Compute ``x W^T`` in the memory of ``out``, by oneDNN where it can and else by ``torch.mm``.

    For 128 rows and 262,144 columns ``torch.mm`` takes 1.4 times as long.

    Args:
        x: ``[rows, inputs]``.
        weight: ``[outputs, inputs]``.
        out: ``[rows, outputs]``; overwritten.
    """
    if not (len(x) and is_supported(weight)):
        return torch.mm(x, weight.T, out=out)
    for start in range(0, len(weight), TILE):
        part = slice(start, start + TILE)
        out[:, part] = multiply(x, weight[part])
    return out


def is_supported(weight: Tensor) -> bool:
    """Return whether oneDNN multiplies by this weight: float32, on a CPU, and a working kernel."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not isinstance(weight, DTensor)  # gathered only while its layer runs
        and torch.backends.mkldnn.is_available()
        and kernels_work()
    )


@functools.cache
def kernels_work() -> bool:
    """Return whether oneDNN's product equals torch's own, by one small product."""
    weight = torch.linspace(-1, 1, 48 * 32).view(48, 32)
    x, bias = weight[:3] + 1, torch.linspace(0, 1, 48)
    try:
        expected = nn.functional.linear(x, weight, bias)
        for layout in (weight, pack(weight, len(x))):
            torch.testing.assert_close(multiply(x, layout, bias), expected)
    except Exception as error:
        rank_zero_warn(
            f"torch {torch.__version__} has other oneDNN kernels than this package knows, so that "
            f"rollouts and losses on a CPU use torch's products, which are slower ({error!r})."
        )
        return False
    return True
