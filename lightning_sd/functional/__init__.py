"""Pure functions over tensors: what the losses are, without models, trainers or state."""

from lightning_sd.functional.contrastive import (
    contrastive_evidence,
    contrastive_gate,
    contrastive_residual,
    contrastive_target,
    entropy_weights,
    evidence_weight,
    log_mean_prob,
    sign_clamped,
)
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
    "contrastive_evidence",
    "contrastive_gate",
    "contrastive_residual",
    "contrastive_target",
    "divergence",
    "entropy_weights",
    "evidence_weight",
    "group_advantages",
    "importance_weight",
    "k3",
    "log_mean_prob",
    "overlong_penalty",
    "sampled_token_loss",
    "sign_clamped",
]
