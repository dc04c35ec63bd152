"""Disable dropout, so that train mode does not add noise to the student's distribution."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from lightning_sd.models.configs import iterate_configs

RATE = re.compile(r"dropout|pdrop|drop_prob|drop_rate|layerdrop|jitter")
"""Names under which modules and configurations keep the rate of a dropout or of a jitter."""


def disable_dropout(model: nn.Module) -> None:
    """Set all dropout and jitter rates of a model to 0, in place.

    Covers dropout modules, rates in attributes of modules (functional dropout, layer drop, router
    jitter), and rates in the model's configuration, which some models read in every forward pass.
    A model that is saved afterwards has these rates in its ``config.json``.

    Args:
        model: The model, before adapters with a dropout of their own are added.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in list_rates(module):
            setattr(module, name, 0.0)
    for config in iterate_configs(getattr(model, "config", None)):
        for name in list_rates(config):
            setattr(config, name, 0.0)


def list_rates(part: Any, *, zero: bool = False) -> list[str]:
    """List the names of the rates that a module or a configuration holds.

    Args:
        part: The module or the configuration.
        zero: Whether to include rates that are 0.
    """
    return [
        name
        for name, value in vars(part).items()
        if isinstance(value, float) and (zero or value > 0) and RATE.search(name)
    ]
