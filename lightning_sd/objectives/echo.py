"""EchoDistill: distillation on the teacher's own text, and a policy gradient beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.divergence import DivergenceSpec, divergence
from lightning_sd.functional.logprobs import sampled_logprobs, token_logprobs
from lightning_sd.functional.policy import clipped_policy_loss
from lightning_sd.functional.shaping import population_advantages, shaped_rewards
from lightning_sd.objectives.base import Objective, TokenLoss, Tokens
from lightning_sd.objectives.inputs import Signals


@dataclass(frozen=True)
class EchoDistill(Objective):
    """EchoDistill's loss, for a teacher that hears the clean sound (context ``CleanInput``).

    ``policy * mean_i -min(rho_i A_i, clip(rho_i, 1 - clip, 1 + clip) A_i) + distill * KLd``, where
    KLd is the divergence of the student from the teacher on the teacher's own text, a mean over its
    tokens and then over questions; A_i are group advantages of the rewards with a bonus
    ``bonus * exp(-KLd)`` for right answers; and rho_i is the ratio of the probabilities that the
    student and the teacher give to the *whole* sampled answer. The teacher plays the part of the
    old policy, so rho is not 1 even before the first step.

    Both averages are the objective's own, so ``reduction`` and ``weights`` stay as they are. With
    ``accumulate_grad_batches`` above 1 they are averages over each micro-batch, joined in
    proportion to its tokens.

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
    """Where A < 0 the ratio has no bound in the formula, and a teacher that is sure finds wrong
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
        if self.reduction != "token" or self.weights:
            raise ValueError(
                f"reduction={self.reduction!r}, weights={self.weights!r}: EchoDistill averages by "
                "itself; leave both at their defaults."
            )
        for name in ("bonus", "policy", "distill"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative.")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip={self.clip}: must lie between 0 and 1.")
        if self.dual_clip is not None and not self.dual_clip > 1 + self.clip:
            raise ValueError(f"dual_clip={self.dual_clip}: must be above 1 + clip, or none.")

    @property
    def reads(self) -> frozenset[str]:
        """Both sides' log-probabilities for the ratio, the divergence for the bonus."""
        return frozenset({"student", "teacher", self.kind})

    def tokens(self, signals: Signals) -> Tokens:
        """Advantages and the ratio for sampled tokens, and each token's weight in its average.

        ``old_logprobs`` are such that a token's own ratio is that of its whole answer: then the
        tokens' gradients add up to the sequence's. ``shares`` hold whether a token is the
        teacher's, and one over the length of its text.
        """
        own, texts = signals.sampled & signals.seen, ~signals.sampled & signals.seen
        texts = texts & (signals.lengths > 0)
        zeros = signals.ids.new_zeros(len(signals.ids), dtype=torch.float32)
        student = zeros if signals.student_logprobs is None else signals.student_logprobs
        teacher = zeros if signals.teacher_logprobs is None else signals.teacher_logprobs
        kl = signals.forward_kl if self.kind == "forward_kl" else signals.reverse_kl
        similarity = self._similarity(signals, zeros if kl is None else kl, texts)
        rewards = signals.rewards.to(similarity.dtype)
        advantages = torch.zeros_like(similarity)
        shaped = shaped_rewards(rewards[own], similarity[own], bonus=self.bonus)
        advantages[own] = population_advantages(shaped, signals.groups[own])
        ratio = _per_row(signals, student - teacher)
        lengths = signals.lengths.clamp(min=1).to(similarity.dtype)
        number = torch.tensor([len(signals.ids), own.sum(), texts.sum()], dtype=torch.float64)
        total, answers, written = signals.total(number).tolist()
        scale = own.to(lengths) * (self.policy * total / max(answers, 1))
        scale += texts.to(lengths) / lengths * (self.distill * total / max(written, 1))
        return Tokens(
            signals.ids,
            student - signals.of_rows(ratio),
            signals.of_rows(advantages),
            signals.of_rows(scale),
            shares=signals.of_rows(torch.stack([texts.to(lengths), 1 / lengths], -1)),
        )

    def _similarity(self, signals: Signals, kl: Tensor, texts: Tensor) -> Tensor:
        """``[R]``: exp(-KLd) of each rollout's question; 0 where the teacher wrote nothing."""
        mean = _per_row(signals, kl) / signals.lengths.clamp(min=1)
        written = signals.group_mean(torch.ones_like(mean), among=texts)
        return written * (-signals.group_mean(mean, among=texts)).exp()

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> TokenLoss:
        """The surrogate at sampled tokens, the divergence at the teacher's; see ``Objective``."""
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
        return TokenLoss(loss, logprobs.detach(), teacher, entropy)


def _per_row(signals: Signals, values: Tensor) -> Tensor:
    """Sum over each rollout's tokens: ``[N]`` to ``[R]``, on the CPU."""
    sums = values.new_zeros(len(signals.groups))
    return sums.index_add(0, signals.rows, values).cpu()
