"""Pure tensor functions of the losses, without models, trainers or state.

Functions are named after the quantity that they return, as in ``torch.nn.functional``.
"""

from lightning_sd.functional.contrastive import (
    clamp_to_sign,
    contrastive_evidence,
    contrastive_gate,
    contrastive_residual,
    contrastive_target,
    entropy_weights,
    evidence_weight,
    log_mean_prob,
)
from lightning_sd.functional.divergence import DivergenceResult, divergence
from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.functional.fused import fused_linear_divergence
from lightning_sd.functional.logits import add_tail
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
    "clamp_to_sign",
    "clipped_policy_loss",
    "contrastive_evidence",
    "contrastive_gate",
    "contrastive_residual",
    "contrastive_target",
    "divergence",
    "entropy_weights",
    "evidence_weight",
    "fused_linear_divergence",
    "group_advantages",
    "importance_weight",
    "k3",
    "log_mean_prob",
    "overlong_penalty",
    "sampled_token_loss",
]
