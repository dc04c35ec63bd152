"""The distillation signal at the sampled token alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_sd.functional.policy import importance_weight, sampled_token_loss
from lightning_sd.objectives.base import TokenInputs, check_positive
from lightning_sd.objectives.importance import (
    Level,
    check_importance,
    list_importance_inputs,
    make_behavior_logprobs,
)
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.logprob_objective import LogprobObjective
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class SampledToken(LogprobObjective):
    """Policy gradient on A = log p_T(y) - log p_S(y), an estimator of reverse KL's gradient."""

    advantage_clip: float | None = None
    """Bound of |A| (SDPO at test time: 5)."""
    importance_clip: float | None = None
    """Upper bound of the importance weight min(p_S / p_behavior, this); see
    :class:`Distillation`."""
    importance: Level = "token"
    """Whether the weight is per ``token`` or per ``sequence``; see :class:`Distillation`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "advantage_clip")
        check_importance(self.importance_clip, self.importance)

    @property
    def inputs(self) -> InputSpec:
        """The teacher's logits, and what the importance weights need."""
        return super().inputs.add(*list_importance_inputs(self.importance_clip, self.importance))

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Return the tokens with the denominator of their importance weights."""
        behavior = make_behavior_logprobs(inputs, self.importance)
        return TokenInputs(inputs.ids, behavior_logprobs=behavior)

    def logprob_loss(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: TokenInputs
    ) -> Tensor:
        """Return the surrogate at each token; see :class:`LogprobObjective`."""
        assert teacher_logprobs is not None
        loss = sampled_token_loss(logprobs, teacher_logprobs, clip=self.advantage_clip)
        if self.importance_clip is not None and tokens.behavior_logprobs is not None:
            loss = loss * importance_weight(
                logprobs, tokens.behavior_logprobs, clip=self.importance_clip
            )
        return loss
