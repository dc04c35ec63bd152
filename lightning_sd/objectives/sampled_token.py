"""The distillation signal at the sampled token alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lightning_sd.functional.policy import importance_weight, sampled_token_loss
from lightning_sd.objectives.at_sampled import AtSampled
from lightning_sd.objectives.base import Tokens, check_above_zero


@dataclass(frozen=True)
class SampledToken(AtSampled):
    """Policy gradient on A = log p_T(y) - log p_S(y): an estimator of reverse KL's gradient."""

    advantage_clip: float | None = None
    """Bound of |A| (SDPO at test time: 5)."""
    importance_clip: float | None = None
    """As :class:`Distillation`'s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "advantage_clip", "importance_clip")

    @property
    def needs_old_logprobs(self) -> bool:
        """If tokens are to be weighted by them."""
        return self.importance_clip is not None

    def of_logprobs(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: Tokens
    ) -> Tensor:
        """The surrogate at each token; see :class:`AtSampled`."""
        assert teacher_logprobs is not None
        loss = sampled_token_loss(logprobs, teacher_logprobs, clip=self.advantage_clip)
        if self.importance_clip is not None and tokens.old_logprobs is not None:
            loss = loss * importance_weight(
                logprobs, tokens.old_logprobs, clip=self.importance_clip
            )
        return loss
