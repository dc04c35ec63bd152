"""Stop on weights or logits that are NaN or infinite, naming the tensor."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import nn

from lightning_sd.models.sharding import to_local


def find_non_finite(model: nn.Module) -> str | None:
    """Return the name of the first parameter with a NaN or infinite value, or None."""
    for name, parameter in model.named_parameters():
        # Of a sharded parameter this rank looks at its shard: other ranks may not be here.
        values = to_local(parameter.detach())
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            return name
    return None


def check_finite_weights(model: nn.Module) -> None:
    """Refuse a model with NaN or infinite weights.

    Raises:
        FloatingPointError: A parameter holds such a value.
    """
    name = find_non_finite(model)
    if name is not None:
        raise FloatingPointError(
            f"{type(model).__name__}: the weight {name!r} holds NaN or infinite values; load "
            "another checkpoint."
        )


def raise_non_finite_logits(model: nn.Module) -> NoReturn:
    """Raise an error for NaN or infinite logits, naming the weight that causes them if one does.

    Raises:
        FloatingPointError: Always.
    """
    name = find_non_finite(model)
    if name is not None:
        raise FloatingPointError(
            f"The logits are NaN because the weight {name!r} holds NaN or infinite values: "
            "training has diverged. Lower the learning rate or clip gradients, and resume from a "
            "checkpoint."
        )
    raise FloatingPointError(
        f"The logits of {type(model).__name__} are NaN or infinite although all weights are "
        "finite: activations overflow; use trainer.precision='bf16-mixed' or '32-true'."
    )
