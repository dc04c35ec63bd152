"""Policy gradients: a teacher shapes their size token by token, the verifier keeps the sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_sd.functional.contrastive import contrastive_evidence, evidence_weight
from lightning_sd.objectives.base import Tokens, check_above_zero
from lightning_sd.objectives.inputs import Signals
from lightning_sd.objectives.policy_gradient import PolicyGradient
from lightning_sd.scoring import LogitsSource


@dataclass(frozen=True)
class AnchoredPolicy(PolicyGradient):
    """What RLSD and RLCSD share: a policy gradient on rollouts that a teacher has seen.

    Group advantages compare all rollouts; those without a teacher's view are then left out.
    The teacher speaks through the signals alone, so no logits of it are formed in the loss.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl > 0:
            raise ValueError(
                f"kl={self.kl}: the teacher of {type(self).__name__} sees a hint, so it is no "
                "reference policy; leave it at 0."
            )

    @property
    def needs_teacher(self) -> bool:
        """Always."""
        return True

    def target(
        self, teacher: LogitsSource, contrasts: Sequence[LogitsSource]
    ) -> LogitsSource | None:
        """None: its log-probabilities of the sampled tokens were all that was wanted."""
        return None

    def contrast_evidence(self, signals: Signals) -> Tensor:
        """``[N]``, log p_c - log mean_k p_w^k; NaN where a rollout has no wrong hint.

        Raises:
            ValueError: There are tokens and no contrasting views at all.
        """
        if signals.teacher_logprobs is None or signals.contrast_logprobs is None:
            if len(signals.ids):
                raise ValueError(
                    f"objective {type(self).__name__} compares a right hint with wrong ones, and "
                    "teacher_context gave no wrong ones: choose ContrastiveHints, or another "
                    "whose views have contrasts."
                )
            return signals.rewards.new_zeros(0, device=signals.ids.device)
        return contrastive_evidence(signals.teacher_logprobs, signals.contrast_logprobs)


@dataclass(frozen=True)
class SignAnchoredPolicy(AnchoredPolicy):
    """RLSD (arXiv 2604.03128): GRPO whose advantages are scaled by what the teacher saw.

    ``A * ((1 - lam) + lam * clip(exp(sign(A) * (log p_T - log p_S)), 1 - clip, 1 + clip))``,
    without gradient through the weight. With ``contrast`` it is RLCSD's plug-in: log p_c - log mean
    p_w stands in for log p_T - log p_S.
    """

    lam: float = 0.5
    """Share of the advantage that the teacher scales."""
    decay_steps: int | None = 50
    """Optimizer steps over which ``lam`` falls evenly to 0, after which it is GRPO; None: never."""
    weight_clip: float = 0.2
    """The weight is kept within 1 - this and 1 + this."""
    contrast: bool = False
    """Compare the right hint with wrong ones (context ``ContrastiveHints``) not the student."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lam", "weight_clip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be from 0 to 1.")
        check_above_zero(self, "decay_steps")

    @property
    def reads(self) -> frozenset[str]:
        """The teacher's view, and what it is compared with."""
        return super().reads | {"teacher", "contrasts" if self.contrast else "student"}

    def share(self, step: int) -> float:
        """``lam`` after so many optimizer steps.

        Example:
            >>> [SignAnchoredPolicy().share(step) for step in (0, 25, 50, 60)]
            [0.5, 0.25, 0.0, 0.0]
        """
        return self.lam * (1 - min(step / self.decay_steps, 1.0)) if self.decay_steps else self.lam

    def evidence(self, signals: Signals) -> Tensor:
        """``[N]``, in nats; NaN where there is none."""
        if self.contrast:
            return self.contrast_evidence(signals)
        if signals.teacher_logprobs is None or signals.student_logprobs is None:
            return signals.rewards.new_zeros(0, device=signals.ids.device)
        return signals.teacher_logprobs - signals.student_logprobs

    def tokens(self, signals: Signals) -> Tokens:
        """Group advantages, each token's scaled by its evidence."""
        tokens = super().tokens(signals)
        assert tokens.advantages is not None
        evidence = self.evidence(signals)
        weight = evidence_weight(
            tokens.advantages, evidence, lam=self.share(signals.step), clip=self.weight_clip
        )
        kept = ~torch.isnan(evidence)
        return replace(tokens, advantages=tokens.advantages * weight, kept=kept)
