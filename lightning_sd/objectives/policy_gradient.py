"""Policy gradient on rewards: GRPO, Dr. GRPO, DAPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.policy import (
    clipped_policy_loss,
    group_advantages,
    importance_weight,
    k3,
    overlong_penalty,
)
from lightning_sd.objectives.at_sampled import AtSampled
from lightning_sd.objectives.base import Tokens, check_above_zero
from lightning_sd.objectives.inputs import Signals


@dataclass(frozen=True)
class PolicyGradient(AtSampled):
    """Clipped policy gradient on group advantages (GRPO and its relatives).

    ``SelfDistillModule`` trains on each rollout once, before the policy that sampled it has moved:
    there the ratio is exactly 1 and the clips do not act. They do where rollouts are used again.

    GRPO: as it stands, ``reduction: sequence``. Dr. GRPO: ``scale: none``, ``reduction: constant``.
    DAPO: ``clip_high: 0.28``, ``overlong_limit`` and ``overlong_margin``, the weights
    ``MixedGroups`` (groups are dropped, not sampled again) and ``FinishedOnly``.
    """

    clip_low: float = 0.2
    """The ratio to the sampling policy is clipped below at 1 - this."""
    clip_high: float = 0.2
    """and above at 1 + this (DAPO: 0.28)."""
    scale: Literal["std", "none"] = "std"
    """Divide the advantage by the group's standard deviation (GRPO), or not (Dr. GRPO)."""
    kl: float = 0.0
    """Weight of KL(student || reference policy), estimated at the sampled token (k3). The teacher
    is the reference policy: take the context ``SameQuestion`` and ``FrozenTeacher``."""
    importance_clip: float | None = None
    """Weight tokens by min(p_S / p_old, this), for samplers that are another engine (SDPO: 2)."""
    overlong_limit: int | None = None
    """Longest completion without any penalty plus ``overlong_margin``; None: no penalty. From
    limit - margin to limit the reward falls by up to 1, beyond it by 1 (DAPO, eq. 13)."""
    overlong_margin: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale not in ("std", "none"):
            raise ValueError(f"scale={self.scale!r}: choose std or none.")
        if not (0 <= self.clip_low < 1 and self.clip_high >= 0):
            raise ValueError(
                f"clip_low={self.clip_low}, clip_high={self.clip_high}: needs 0 <= clip_low < 1 "
                "and clip_high >= 0."
            )
        if self.kl < 0:
            raise ValueError(f"kl={self.kl}: must not be negative.")
        check_above_zero(self, "importance_clip", "overlong_limit")
        if self.overlong_margin < 0 or self.overlong_margin > (self.overlong_limit or 0):
            raise ValueError(
                f"overlong_margin={self.overlong_margin}: from 0 to overlong_limit "
                f"({self.overlong_limit})."
            )

    @property
    def needs_teacher(self) -> bool:
        """Only as the reference policy of the KL term."""
        return self.kl > 0

    @property
    def needs_old_logprobs(self) -> bool:
        """If tokens are to be weighted by them."""
        return self.importance_clip is not None

    def advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Group advantages; see :func:`~lightning_sd.functional.group_advantages`."""
        return group_advantages(rewards, groups, scale=self.scale)

    def tokens(self, signals: Signals) -> Tokens:
        """Each token has its rollout's advantage."""
        rewards = signals.rewards
        if self.overlong_limit is not None:
            limits = {"limit": self.overlong_limit, "margin": self.overlong_margin}
            rewards = rewards + overlong_penalty(signals.lengths, **limits)
        # A teacher's text that a context brought in is nobody's sibling.
        own, advantages = signals.sampled, torch.zeros_like(rewards)
        advantages[own] = self.advantages(rewards[own], signals.groups[own])
        return Tokens(signals.ids, signals.old_logprobs, signals.of_rows(advantages))

    def of_logprobs(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: Tokens
    ) -> Tensor:
        """The surrogate at each token; see :class:`AtSampled`."""
        assert tokens.advantages is not None
        old = logprobs.detach()
        if tokens.old_logprobs is not None:
            old = torch.where(tokens.old_logprobs.isnan(), old, tokens.old_logprobs)
        loss = clipped_policy_loss(
            logprobs,
            old,
            tokens.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
        )
        if self.importance_clip is not None and tokens.old_logprobs is not None:
            loss = loss * importance_weight(logprobs, old, clip=self.importance_clip)
        if self.kl and teacher_logprobs is not None:
            loss = loss + self.kl * k3(logprobs, teacher_logprobs)
        return loss
