"""EchoDistill: distillation on the teacher's own text and a policy gradient on rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.divergence import divergence
from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.functional.logprobs import sampled_logprobs, token_logprobs
from lightning_sd.functional.policy import clipped_policy_loss
from lightning_sd.functional.shaping import population_advantages, shaped_rewards
from lightning_sd.objectives.base import Objective, TokenInputs, TokenLoss
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class EchoDistill(Objective):
    """EchoDistill's loss, for a teacher that hears the clean sound (context ``CleanInput``).

    ``policy * mean_i -min(rho_i A_i, clip(rho_i, 1 - clip, 1 + clip) A_i) + distill * KLd``, where
    KLd is the divergence of the student from the teacher on the teacher's own text, a mean over its
    tokens and then over questions; A_i are group advantages of the rewards with a bonus
    ``bonus * exp(-KLd)`` for right answers; and rho_i is the ratio of the probabilities that the
    student and the teacher give to the *whole* sampled answer. The teacher takes the place of the
    old policy, so rho differs from 1 even before the first step.

    Both averages are part of the objective, so ``reduction`` and ``token_weights`` keep their
    defaults. With ``accumulate_grad_batches`` above 1 they are averages over each micro-batch,
    joined in proportion to its tokens.

    Raises:
        ValueError: A setting out of range, or one of another objective's averages.
    """

    kind: Literal["forward_kl", "reverse_kl"] = "forward_kl"
    """Of KLd, in the loss and in the bonus. ``forward_kl`` is what the authors' code computes,
    KL(teacher || student); its comment says ``reverse_kl``, KL(student || teacher)."""
    bonus: float = 0.5
    """Weight of exp(-KLd) in the reward of right answers (the default of the authors' code)."""
    clip: float = 0.2
    """Of the ratio, both ways. Not published."""
    dual_clip: float | None = None
    """Where A < 0 the formula does not bound the ratio, and a confident teacher may find wrong
    answers e^20 times less likely than the student does. With a bound c > 1 the surrogate of bad
    answers is at most c |A|, and beyond it they have no gradient (arXiv 1912.09729, eq. 5)."""
    policy: float = 1.0
    """Weight of the policy gradient; 0: distillation alone. Not published."""
    distill: float = 1.0
    """Weight of KLd; 0: a policy gradient with shaped rewards. Not published."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("forward_kl", "reverse_kl"):
            raise ValueError(f"kind={self.kind!r}: choose forward_kl or reverse_kl.")
        if self.reduction != "token" or self.token_weights:
            raise ValueError(
                f"reduction={self.reduction!r}, token_weights={self.token_weights!r}: EchoDistill "
                "has averages of its own; leave both at their defaults."
            )
        for name in ("bonus", "policy", "distill"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative.")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip={self.clip}: must lie between 0 and 1.")
        if self.dual_clip is not None and not self.dual_clip > 1 + self.clip:
            raise ValueError(f"dual_clip={self.dual_clip}: must be above 1 + clip, or none.")

    @property
    def inputs(self) -> InputSpec:
        """Both models' log-probabilities for the ratio, and the divergence for the bonus."""
        return super().inputs.add("student_logprobs", "teacher_logprobs", self.kind)

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Return advantages, the ratio of sampled tokens, and each token's weight in its average.

        ``old_logprobs`` are chosen so that a token's ratio is that of its whole answer; the tokens'
        gradients then add up to the sequence's. ``shares`` hold whether a token is the teacher's,
        and one over the length of its text.
        """
        own, texts = inputs.by_student & inputs.has_view, ~inputs.by_student & inputs.has_view
        texts = texts & (inputs.lengths > 0)
        zeros = inputs.ids.new_zeros(len(inputs.ids), dtype=torch.float32)
        student = zeros if inputs.student_logprobs is None else inputs.student_logprobs
        teacher = zeros if inputs.teacher_logprobs is None else inputs.teacher_logprobs
        kl = inputs.forward_kl if self.kind == "forward_kl" else inputs.reverse_kl
        similarity = self._compute_similarity(inputs, zeros if kl is None else kl, texts)
        rewards = inputs.rewards.to(similarity.dtype)
        advantages = torch.zeros_like(similarity)
        shaped = shaped_rewards(rewards[own], similarity[own], bonus=self.bonus)
        advantages[own] = population_advantages(shaped, inputs.groups[own])
        ratio = inputs.sum_over_tokens(student - teacher)
        lengths = inputs.lengths.clamp(min=1).to(similarity.dtype)
        number = torch.tensor([len(inputs.ids), own.sum(), texts.sum()], dtype=torch.float64)
        total, answers, written = state.sum_over_ranks(number).tolist()
        scale = own.to(lengths) * (self.policy * total / max(answers, 1))
        scale += texts.to(lengths) / lengths * (self.distill * total / max(written, 1))
        return TokenInputs(
            inputs.ids,
            student - inputs.expand_to_tokens(ratio),
            inputs.expand_to_tokens(advantages),
            inputs.expand_to_tokens(scale),
            shares=inputs.expand_to_tokens(torch.stack([texts.to(lengths), 1 / lengths], -1)),
        )

    def _compute_similarity(self, inputs: ObjectiveInputs, kl: Tensor, texts: Tensor) -> Tensor:
        """Return exp(-KLd) of each rollout's question, ``[R]``; 0 without a teacher's text."""
        mean = inputs.sum_over_tokens(kl) / inputs.lengths.clamp(min=1)
        written = inputs.average_over_groups(torch.ones_like(mean), among=texts)
        return written * (-inputs.average_over_groups(mean, among=texts)).exp()

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: TokenInputs
    ) -> TokenLoss:
        """Return the surrogate at sampled tokens and the divergence at the teacher's tokens."""
        assert teacher_logits is not None
        assert tokens.old_logprobs is not None
        assert tokens.advantages is not None
        assert tokens.shares is not None
        logprobs, entropy = sampled_logprobs(student_logits, tokens.ids)
        teacher = token_logprobs(teacher_logits, tokens.ids)
        surrogate = clipped_policy_loss(
            logprobs,
            tokens.old_logprobs,
            tokens.advantages,
            clip_low=self.clip,
            clip_high=self.clip,
        )
        if self.dual_clip is not None:
            most = self.dual_clip * tokens.advantages.abs()
            surrogate = torch.where(tokens.advantages < 0, surrogate.minimum(most), surrogate)
        # Each token has the gradient of the whole, and its share of the value.
        value = surrogate.detach()
        loss = surrogate - value + value * tokens.shares[:, 1].to(value)
        text = tokens.shares[:, 0] > 0
        if text.any():
            spec = DivergenceSpec(kind=self.kind)
            kl = divergence(student_logits[text], teacher_logits[text], tokens.ids[text], spec)
            loss = loss.index_put((text,), kl.value.to(loss))
        return TokenLoss(loss, logprobs.detach(), entropy, teacher)
