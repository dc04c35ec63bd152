"""Policy gradients that a teacher scales token by token, while the verifier keeps the sign."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_sd.functional.contrastive import contrastive_evidence, evidence_weight
from lightning_sd.objectives.base import TokenInputs, check_positive
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.policy_gradient import PolicyGradient
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class AnchoredPolicy(PolicyGradient):
    """A policy gradient on rollouts that have a teacher view; the base of RLSD and RLCSD.

    Group advantages compare all rollouts; those without a teacher's view are then left out.
    The teacher acts through the advantages alone, so the loss reads none of its logits.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl > 0:
            raise ValueError(
                f"kl={self.kl}: the teacher of {type(self).__name__} sees a hint, so it is no "
                "reference policy; leave it at 0."
            )

    @property
    def inputs(self) -> InputSpec:
        """The teacher's log-probabilities of the sampled tokens, and no logits."""
        return super().inputs.add("teacher_logprobs", teacher="required", teacher_logits=False)

    def compare_hints(self, inputs: ObjectiveInputs) -> Tensor:
        """Return log p_c - log mean_k p_w^k, ``[N]``; NaN where a rollout has no wrong hint.

        Raises:
            ValueError: There are tokens but no contrasting views.
        """
        if inputs.teacher_logprobs is None or inputs.contrast_logprobs is None:
            if len(inputs.ids):
                raise ValueError(
                    f"objective {type(self).__name__} compares a right hint with wrong ones, and "
                    "teacher_context gave no wrong ones: choose ContrastiveHints, or another "
                    "whose views have contrasts."
                )
            return inputs.rewards.new_zeros(0, device=inputs.ids.device)
        return contrastive_evidence(inputs.teacher_logprobs, inputs.contrast_logprobs)

    @abstractmethod
    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Return group advantages, which subclasses scale or shift by the teacher."""
        return super().make_token_inputs(inputs, state)


@dataclass(frozen=True)
class SignAnchoredPolicy(AnchoredPolicy):
    """RLSD (arXiv 2604.03128): GRPO whose advantages are scaled by what the teacher saw.

    ``A * ((1 - lam) + lam * clip(exp(sign(A) * (log p_T - log p_S)), 1 - clip, 1 + clip))``,
    without gradient through the weight. With ``contrast`` it is RLCSD's plug-in: log p_c - log mean
    p_w replaces log p_T - log p_S.
    """

    lam: float = 0.5
    """Share of the advantage that the teacher scales."""
    decay_steps: int | None = 50
    """Optimizer steps over which ``lam`` falls evenly to 0, after which it is GRPO; None: never."""
    weight_clip: float = 0.2
    """The weight is kept within 1 - this and 1 + this."""
    contrast: bool = False
    """Compare the right hint with wrong ones (context ``ContrastiveHints``), not with the
    student."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lam", "weight_clip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be from 0 to 1.")
        check_positive(self, "decay_steps")

    @property
    def inputs(self) -> InputSpec:
        """The teacher's log-probabilities, and those that they are compared with."""
        return super().inputs.add("contrast_logprobs" if self.contrast else "student_logprobs")

    def teacher_share(self, step: int) -> float:
        """Return ``lam`` after a number of optimizer steps.

        Example:
            >>> [SignAnchoredPolicy().teacher_share(step) for step in (0, 25, 50, 60)]
            [0.5, 0.25, 0.0, 0.0]
        """
        return self.lam * (1 - min(step / self.decay_steps, 1.0)) if self.decay_steps else self.lam

    def compute_evidence(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the evidence in nats, ``[N]``; NaN for tokens without evidence."""
        if self.contrast:
            return self.compare_hints(inputs)
        if inputs.teacher_logprobs is None or inputs.student_logprobs is None:
            return inputs.rewards.new_zeros(0, device=inputs.ids.device)
        return inputs.teacher_logprobs - inputs.student_logprobs

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Scale each token's group advantage by its evidence."""
        tokens = super().make_token_inputs(inputs, state)
        assert tokens.advantages is not None
        evidence = self.compute_evidence(inputs)
        weight = evidence_weight(
            tokens.advantages, evidence, lam=self.teacher_share(state.step), clip=self.weight_clip
        )
        kept = ~torch.isnan(evidence)
        return replace(tokens, advantages=tokens.advantages * weight, kept=kept)
