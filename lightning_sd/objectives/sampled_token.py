"""The distillation signal at the sampled token alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_sd.functional.policy import importance_weight, sampled_token_loss
from lightning_sd.objectives.base import TokenInputs, check_positive
from lightning_sd.objectives.logprob_objective import LogprobObjective
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class SampledToken(LogprobObjective):
    """Policy gradient on A = log p_T(y) - log p_S(y), an estimator of reverse KL's gradient."""

    advantage_clip: float | None = None
    """Bound of |A| (SDPO at test time: 5)."""
    importance_clip: float | None = None
    """Weight tokens that an older policy sampled by min(p_S / p_old, this); see
    :class:`Distillation`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "advantage_clip", "importance_clip")

    @property
    def inputs(self) -> InputSpec:
        """The teacher's logits, and the sampling policy's log-probabilities if they weigh."""
        return super().inputs.add(*(["old_logprobs"] if self.importance_clip else []))

    def logprob_loss(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: TokenInputs
    ) -> Tensor:
        """Return the surrogate at each token; see :class:`LogprobObjective`."""
        assert teacher_logprobs is not None
        loss = sampled_token_loss(logprobs, teacher_logprobs, clip=self.advantage_clip)
        if self.importance_clip is not None and tokens.old_logprobs is not None:
            loss = loss * importance_weight(
                logprobs, tokens.old_logprobs, clip=self.importance_clip
            )
        return loss
