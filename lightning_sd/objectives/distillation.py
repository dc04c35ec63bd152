"""A divergence between student and teacher over the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.functional.divergence import (
    DivergenceResult,
    DivergenceSpec,
    Kind,
    Support,
    divergence,
    divergence_and_grad_,
)
from lightning_sd.functional.policy import importance_weight
from lightning_sd.objectives.base import Objective, TokenLoss, Tokens, check_above_zero


@dataclass(frozen=True)
class Distillation(Objective):
    """A divergence between student and teacher over the vocabulary. Default: forward KL, KL(T||S).

    Example:
        >>> Distillation(kind="js", beta=0.5, top_k=100).spec.top_k
        100
    """

    kind: Kind = "forward_kl"
    """``forward_kl`` is KL(teacher || student), ``reverse_kl`` KL(student || teacher), ``js``
    beta KL(T||M) + (1 - beta) KL(S||M) with M = beta T + (1 - beta) S."""
    beta: float = 0.5
    """Of ``js`` only."""
    top_k: int | None = None
    """Compare on k tokens; None: on the whole vocabulary."""
    support: Support = "student"
    """Whose k most likely tokens."""
    tail: bool = True
    """One more category for all other tokens; False: renormalise on the k tokens."""
    element_clip: float | None = None
    """Bound of each (token, vocabulary) element before the sum (OPSD: 0.05)."""
    ratio_low: float | None = None
    """Lower bound of p_T / p_S, element by element, before the divergence (RESD: 0.2)."""
    ratio_high: float | None = None
    """Upper bound of the same (RESD: none, or 5)."""
    token_clip: float | None = None
    """Bound of each token's whole divergence."""
    importance_clip: float | None = None
    """Weight tokens that an older policy sampled by min(p_S / p_old, this) (SDPO: 2). Needs the
    sampler's temperature to be this objective's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero(self, "token_clip", "importance_clip")
        _ = self.spec

    @property
    def needs_old_logprobs(self) -> bool:
        """If they are to be weighted."""
        return self.importance_clip is not None

    @property
    def spec(self) -> DivergenceSpec:
        """The part of the settings that the divergence reads."""
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

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> TokenLoss:
        """The divergence at each token; see :class:`Objective`."""
        assert teacher_logits is not None
        result = divergence(student_logits, teacher_logits, tokens.ids, self.spec)
        return self._clipped(result, tokens)[0]

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> tuple[TokenLoss, Tensor]:
        """With the gradient that the divergence forms anyway; see :class:`Objective`."""
        assert teacher_logits is not None
        result = divergence_and_grad_(student_logits, teacher_logits, tokens.ids, self.spec)
        return self._clipped(result, tokens)

    def _clipped(self, result: DivergenceResult, tokens: Tokens) -> tuple[TokenLoss, Tensor]:
        """Clip and weight whole tokens: the loss, and what that does to its gradient."""
        loss, factor = result.value, torch.ones_like(result.value)
        if self.token_clip is not None:
            factor = (loss <= self.token_clip).to(loss.dtype)
            loss = loss.clamp(max=self.token_clip)
        if self.importance_clip is not None and tokens.old_logprobs is not None:
            weight = importance_weight(
                result.student_logprobs, tokens.old_logprobs, clip=self.importance_clip
            )
            loss, factor = loss * weight, factor * weight
        terms = (result.student_logprobs, result.teacher_logprobs, result.entropy)
        return TokenLoss(loss, *terms), factor
