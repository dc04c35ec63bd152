"""How the signal becomes a loss: small settings objects over :mod:`lightning_sd.functional`.

An objective says what one token costs. Which tokens count, how they are averaged over the global
batch and how the vocabulary is chunked is the same for all and stands in :mod:`lightning_sd.loss`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.divergence import (
    LOG_FLOOR,
    DivergenceResult,
    DivergenceSpec,
    Kind,
    Support,
    divergence,
    divergence_and_grad_,
    softmax_and_lse,
    widened,
)
from lightning_sd.functional.policy import (
    clipped_policy_loss,
    group_advantages,
    importance_weight,
    sampled_token_loss,
)

Reduction = Literal["token", "sequence"]


@dataclass(frozen=True)
class Tokens:
    """What is known of each completion token beside the logits; each ``[tokens]``."""

    ids: Tensor
    """The sampled token."""
    old_logprobs: Tensor | None = None
    """Under the policy that sampled it; None: the current policy sampled it."""
    advantages: Tensor | None = None
    """The rollout's advantage, the same for all its tokens."""

    def part(self, chunk: slice) -> Tokens:
        """The same for some of the tokens."""
        old, advantages = self.old_logprobs, self.advantages
        return Tokens(
            self.ids[chunk],
            None if old is None else old[chunk],
            None if advantages is None else advantages[chunk],
        )


@dataclass(frozen=True)
class TokenLoss:
    """Results for a chunk; each ``[tokens]``. Only ``loss`` carries a gradient."""

    loss: Tensor
    student_logprobs: Tensor
    """Of the sampled token."""
    teacher_logprobs: Tensor | None
    """Likewise; None without a teacher."""
    entropy: Tensor
    """The student's, in nats."""


@dataclass(frozen=True)
class Objective(ABC):
    """What one completion token costs."""

    reduction: Reduction = "token"
    """``token``: mean over all tokens of the global batch. ``sequence``: over each completion's
    tokens first, then over completions."""
    temperature: float = 1.0
    """Logits of student and teacher are divided by it."""
    chunk_tokens: int | None = None
    """Tokens whose ``[tokens, vocab]`` logits are held at once; None: about 64 MiB of logits."""

    def __post_init__(self) -> None:
        if self.reduction not in ("token", "sequence"):
            raise ValueError(f"reduction={self.reduction!r}: choose token or sequence.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature}: must be above 0, finite.")
        if self.chunk_tokens is not None and self.chunk_tokens < 1:
            raise ValueError(f"chunk_tokens={self.chunk_tokens}: must be at least 1.")

    @property
    def needs_teacher(self) -> bool:
        """Whether rollouts without a teacher's view are left out."""
        return True

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether it reads the log-probabilities under which the rollouts were sampled."""
        return False

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor | None:
        """Advantage of each rollout from the rewards of its group, if the objective reads one.

        Args:
            rewards: ``[rollouts]``.
            groups: ``[rollouts]``, equal numbers are siblings.
        """
        return None

    @abstractmethod
    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> TokenLoss:
        """Cost of each token of a chunk.

        Args:
            student_logits: ``[tokens, vocab]``, already divided by the temperature.
            teacher_logits: The same under the teacher; None if :attr:`needs_teacher` is False.
            tokens: ``[tokens]`` each.
        """

    def loss_and_grad_(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> tuple[TokenLoss, Tensor]:
        """The same without a graph, the student's logits overwritten with the loss's gradient.

        Objectives that know their gradient override it; this is autograd.

        Args:
            student_logits: ``[tokens, vocab]``, float32 or wider, without a graph.
            teacher_logits: Likewise; may be overwritten.
            tokens: ``[tokens]`` each.

        Returns:
            What :meth:`token_loss` gives, and by what each token's gradient is still to be
            multiplied, ``[tokens]``.
        """
        with torch.enable_grad():
            leaf = student_logits.detach().clone().requires_grad_()
            result = self.token_loss(leaf, teacher_logits, tokens)
            (grad,) = torch.autograd.grad(result.loss.sum(), leaf)
        student_logits.copy_(grad)
        return replace(result, loss=result.loss.detach()), torch.ones_like(result.loss)


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
    token_clip: float | None = None
    """Bound of each token's whole divergence."""
    importance_clip: float | None = None
    """Weight tokens that an older policy sampled by min(p_S / p_old, this) (SDPO: 2). Needs the
    sampler's temperature to be this objective's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("token_clip", "importance_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: must be above 0, or none.")
        _ = self.spec

    @property
    def needs_old_logprobs(self) -> bool:
        """If they are to be weighted."""
        return self.importance_clip is not None

    @property
    def spec(self) -> DivergenceSpec:
        """The part of the settings that the divergence reads."""
        return DivergenceSpec(
            self.kind, self.beta, self.top_k, self.support, self.tail, self.element_clip
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


@dataclass(frozen=True)
class SampledToken(Objective):
    """Policy gradient on A = log p_T(y) - log p_S(y): an estimator of reverse KL's gradient."""

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> TokenLoss:
        """The surrogate at each token; see :class:`Objective`."""
        assert teacher_logits is not None
        logprobs, entropy = sampled_logprobs(student_logits, tokens.ids)
        teacher = token_logprobs(teacher_logits, tokens.ids)
        return TokenLoss(sampled_token_loss(logprobs, teacher), logprobs.detach(), teacher, entropy)


@dataclass(frozen=True)
class PolicyGradient(Objective):
    """Clipped policy gradient on group advantages (GRPO and its relatives); reads no teacher.

    ``SelfDistillModule`` trains on each rollout once, before the policy that sampled it has moved:
    there the ratio is exactly 1 and the clips do not act. They do where rollouts are used again.
    """

    clip_low: float = 0.2
    """The ratio to the sampling policy is clipped below at 1 - this."""
    clip_high: float = 0.2
    """and above at 1 + this (DAPO: 0.28)."""
    scale: Literal["std", "none"] = "std"
    """Divide the advantage by the group's standard deviation (GRPO), or not (Dr. GRPO)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in ("std", "none"):
            raise ValueError(f"scale={self.scale!r}: choose std or none.")
        if not (0 <= self.clip_low < 1 and self.clip_high >= 0):
            raise ValueError(
                f"clip_low={self.clip_low}, clip_high={self.clip_high}: needs 0 <= clip_low < 1 "
                "and clip_high >= 0."
            )

    @property
    def needs_teacher(self) -> bool:
        """No."""
        return False

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Group advantages; see :func:`~lightning_sd.functional.group_advantages`."""
        return group_advantages(rewards, groups, scale=self.scale)

    def token_loss(
        self, student_logits: Tensor, teacher_logits: Tensor | None, tokens: Tokens
    ) -> TokenLoss:
        """The surrogate at each token; see :class:`Objective`."""
        assert tokens.advantages is not None
        logprobs, entropy = sampled_logprobs(student_logits, tokens.ids)
        old = logprobs.detach() if tokens.old_logprobs is None else tokens.old_logprobs
        loss = clipped_policy_loss(
            logprobs,
            old,
            tokens.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
        )
        return TokenLoss(loss, logprobs.detach(), None, entropy)


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of given tokens, with gradient, in float32 or wider.

    Args:
        logits: ``[tokens, vocab]``.
        ids: ``[tokens]``.

    Returns:
        ``[tokens]``.
    """
    return -torch.nn.functional.cross_entropy(widened(logits), ids, reduction="none")


def sampled_logprobs(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of given tokens, with gradient, and the entropy, without.

    Args:
        logits: ``[tokens, vocab]``.
        ids: ``[tokens]``.

    Returns:
        Both ``[tokens]``, in float32 or wider.
    """
    wide = widened(logits)
    logprobs = token_logprobs(wide, ids)
    with torch.no_grad(), torch.autocast(wide.device.type, enabled=False):
        finite = wide.clamp(min=wide.amax(-1, keepdim=True) + LOG_FLOOR)
        probs, normaliser = softmax_and_lse(finite)
        entropy = normaliser.squeeze(-1) - torch.linalg.vecdot(probs, finite)
    return logprobs, entropy
