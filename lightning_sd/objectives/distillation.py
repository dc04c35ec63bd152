"""A divergence between student and teacher over the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.functional.divergence import (
    DivergenceResult,
    divergence,
    divergence_and_grad_,
)
from lightning_sd.functional.divergence_spec import DivergenceSpec, Kind, Support
from lightning_sd.functional.policy import importance_weight
from lightning_sd.objectives.base import Objective, TokenInputs, TokenLoss, check_positive
from lightning_sd.objectives.importance import (
    Level,
    check_importance,
    list_importance_inputs,
    make_behavior_logprobs,
)
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class Distillation(Objective):
    """A divergence between student and teacher over the vocabulary.

    Example:
        >>> Distillation(kind="js", beta=0.5, top_k=100).spec.top_k
        100
    """

    kind: Kind = "forward_kl"
    """``forward_kl`` is KL(teacher || student), ``reverse_kl`` KL(student || teacher), ``js``
    beta KL(T||M) + (1 - beta) KL(S||M) with M = beta T + (1 - beta) S."""
    beta: float = 0.5
    """Mixture weight of the teacher; used by ``js`` only."""
    top_k: int | None = None
    """Compare on the k most likely tokens; None: on the whole vocabulary."""
    support: Support = "student"
    """Which model's k most likely tokens: ``student`` or ``teacher``."""
    tail: bool = True
    """Add one category for all other tokens; False: renormalize over the k tokens."""
    element_clip: float | None = None
    """Upper bound of each (token, vocabulary) element before the sum (OPSD: 0.05)."""
    ratio_low: float | None = None
    """Lower bound of p_T / p_S, element by element, before the divergence (RESD: 0.2)."""
    ratio_high: float | None = None
    """Upper bound of p_T / p_S (RESD: none, or 5)."""
    token_clip: float | None = None
    """Upper bound of each token's divergence."""
    importance_clip: float | None = None
    """Weigh tokens by min(p_S / p_behavior, this) without gradient (SDPO: 2), where p_behavior is
    what the sampler reports: another engine, or older parameters. The sampler must have the
    temperature of this objective and no top-p or top-k."""
    importance: Level = "token"
    """``token``: one weight per token. ``sequence``: one weight per completion, from the product of
    its tokens' ratios; it costs one more product with the output head, without a gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "token_clip")
        check_importance(self.importance_clip, self.importance)
        _ = self.spec

    @property
    def inputs(self) -> InputSpec:
        """The teacher's logits, and what the importance weights need."""
        return super().inputs.add(*list_importance_inputs(self.importance_clip, self.importance))

    @property
    def spec(self) -> DivergenceSpec:
        """The settings that the divergence reads."""
        return DivergenceSpec(
            self.kind,
            self.beta,
            self.top_k,
            self.support,
            self.tail,
            self.element_clip,
            self.ratio_low,
            self.ratio_high,
        )

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Return the tokens with the denominator of their importance weights."""
        behavior = make_behavior_logprobs(inputs, self.importance)
        return TokenInputs(inputs.ids, behavior_logprobs=behavior)

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> TokenLoss:
        """Return the divergence at each token; see :class:`Objective`."""
        assert teacher_logits is not None
        result = divergence(student_logits, teacher_logits, tokens.ids, self.spec)
        return self._clip_tokens(result, tokens)[0]

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> tuple[TokenLoss, Tensor]:
        """Return the gradient that the divergence forms anyway; see :class:`Objective`."""
        assert teacher_logits is not None
        result = divergence_and_grad_(student_logits, teacher_logits, tokens.ids, self.spec)
        return self._clip_tokens(result, tokens)

    def _clip_tokens(
        self, result: DivergenceResult, tokens: TokenInputs
    ) -> tuple[TokenLoss, Tensor]:
        """Clip and weight whole tokens; return the loss and the factor of its gradient."""
        loss, factor = result.value, torch.ones_like(result.value)
        if self.token_clip is not None:
            factor = (loss <= self.token_clip).to(loss.dtype)
            loss = loss.clamp(max=self.token_clip)
        if self.importance_clip is not None and tokens.behavior_logprobs is not None:
            weight = importance_weight(
                result.student_logprobs, tokens.behavior_logprobs, clip=self.importance_clip
            )
            loss, factor = loss * weight, factor * weight
        values = (result.student_logprobs, result.entropy, result.teacher_logprobs)
        return TokenLoss(loss, *values), factor
