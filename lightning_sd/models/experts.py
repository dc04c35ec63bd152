"""The auxiliary loss with which transformers balances the routers of a mixture of experts."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.configs import iterate_configs

ARGUMENTS = ["gate_logits", "num_experts", "top_k", "attention_mask"]


@dataclass(frozen=True)
class RouterLoss:
    """The auxiliary loss that a model's own forward pass adds to its loss."""

    function: Callable[[tuple[Tensor, ...], int, int], Tensor]
    """The ``load_balancing_loss_func`` of the model's family."""
    experts: int
    """Number of experts per layer."""
    chosen: int
    """Number of experts per token."""
    weight: float
    """Factor of the auxiliary loss in the model's loss."""

    def compute(self, router_logits: tuple[Tensor, ...]) -> Tensor:
        """Compute the loss without its weight; ``chosen`` if all experts are used equally.

        Args:
            router_logits: One tensor per layer, ``[tokens, experts]``, without padding.
        """
        return self.function(router_logits, self.experts, self.chosen)


def find_router_loss(model: Any) -> RouterLoss | None:
    """Find the auxiliary loss that a model's configuration asks for (``output_router_logits``).

    Args:
        model: A transformers model, with or without peft.

    Returns:
        The loss; None if the configuration does not ask for one.

    Raises:
        ValueError: The family does not compute that loss, or computes it from something else.
    """
    base = get_causal_lm(model)
    configs = list(iterate_configs(getattr(base, "config", None)))
    if not any(getattr(config, "output_router_logits", False) for config in configs):
        return None
    # FSDP2 and users derive classes from those of transformers.
    modules = (sys.modules.get(cls.__module__) for cls in type(base).__mro__)
    functions = (getattr(module, "load_balancing_loss_func", None) for module in modules)
    function = next(filter(None, functions), None)
    experts, chosen = (getattr(base, name, None) for name in ("num_experts", "num_experts_per_tok"))
    weight = getattr(base, "router_aux_loss_coef", getattr(base, "aux_loss_coef", None))
    known = function is not None and list(inspect.signature(function).parameters) == ARGUMENTS
    if function is None or not known or experts is None or chosen is None or weight is None:
        raise make_router_loss_error(base)
    return RouterLoss(function, experts, chosen, weight)


def make_router_loss_error(model: Any) -> ValueError:
    """Make the error that says that a model's auxiliary loss can't be trained."""
    return ValueError(
        f"{type(get_causal_lm(model)).__name__}: output_router_logits=True asks for the routers' "
        "auxiliary loss, which is not computed from router logits here as it is for Mixtral. Set "
        "output_router_logits=False in the model's configuration, and freeze the routers or watch "
        "the balance of the experts."
    )
