"""The numbers by which a checkpoint names the parameters of an optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer


def renumber_state(
    state: Mapping[str, Any], optimizer: Optimizer, module: nn.Module
) -> dict[str, Any]:
    """Number an optimizer's parameters by their places among all parameters of a module.

    An optimizer counts only its own, which are fewer if some are frozen; FSDP2 counts all when it
    loads the file of a run without it. Other strategies go by the order, which stays the same.

    Args:
        state: What the optimizer's ``state_dict`` returned.
        optimizer: The optimizer.
        module: The module that holds the parameters.
    """
    places = {id(parameter): place for place, parameter in enumerate(module.parameters())}
    own = [places[id(p)] for group in optimizer.param_groups for p in group["params"]]
    groups = [{**g, "params": [own[i] for i in g["params"]]} for g in state["param_groups"]]
    return {
        **state,
        "state": {own[i]: values for i, values in state["state"].items()},
        "param_groups": groups,
    }
