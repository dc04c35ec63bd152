"""Name what is left out when a mixture of experts is trained."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lightning_sd.models.configs import iterate_configs


def check_router_loss(model: Any) -> None:
    """Warn if a configuration asks for the routers' auxiliary loss, which no objective adds.

    Args:
        model: A transformers model.
    """
    for config in iterate_configs(getattr(model, "config", None)):
        if getattr(config, "output_router_logits", False):
            weight = getattr(config, "router_aux_loss_coef", None)
            rank_zero_warn(
                f"{type(model).__name__}: the configuration asks for the routers' auxiliary loss "
                f"(output_router_logits=True, router_aux_loss_coef={weight}), which is not part of "
                "the objective. Watch the balance of the experts, or freeze the routers."
            )
            return
