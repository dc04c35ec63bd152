"""Pure functions over tensors: what the losses are, without models, trainers or state."""

from lightning_sd.functional.divergence import (
    DivergenceResult,
    DivergenceSpec,
    add_tail,
    divergence,
)
from lightning_sd.functional.policy import (
    clipped_policy_loss,
    group_advantages,
    importance_weight,
    k3,
    overlong_penalty,
    sampled_token_loss,
)

__all__ = [
    "DivergenceResult",
    "DivergenceSpec",
    "add_tail",
    "clipped_policy_loss",
    "divergence",
    "group_advantages",
    "importance_weight",
    "k3",
    "overlong_penalty",
    "sampled_token_loss",
]
