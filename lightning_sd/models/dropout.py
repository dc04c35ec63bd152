"""Disable dropout, so that train mode does not add noise to the student's distribution."""

from __future__ import annotations

from torch import nn

FUNCTIONAL_RATES = ("attention_dropout", "activation_dropout", "dropout", "layerdrop")
"""Attributes from which modules read the rate of a functional dropout."""


def disable_dropout(model: nn.Module) -> None:
    """Set all dropout rates of a model to 0, in place."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in FUNCTIONAL_RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
