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
from lightning_sd.objectives.base import TokenInputs, check_positive
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.logprob_objective import LogprobObjective
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class PolicyGradient(LogprobObjective):
    """Clipped policy gradient on group advantages (GRPO and its relatives).

    ``SelfDistillModule`` trains on each rollout once, before the policy that sampled it has moved:
    the ratio is then exactly 1 and the clips do not act. They act where rollouts are used again.

    GRPO: the defaults with ``reduction: sequence``. Dr. GRPO: ``scale: none`` and
    ``reduction: constant``. DAPO: ``clip_high: 0.28``, ``overlong_limit`` and ``overlong_margin``,
    and the token weights ``MixedGroups`` (groups are dropped, not sampled again) and
    ``FinishedOnly``.
    """

    clip_low: float = 0.2
    """The ratio to the sampling policy is clipped below at 1 - this (GRPO: 0.2)."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + this (DAPO: 0.28)."""
    scale: Literal["std", "none"] = "std"
    """Divide the advantage by the group's standard deviation (GRPO), or not (Dr. GRPO)."""
    kl: float = 0.0
    """Weight of KL(student || reference policy), estimated at the sampled token (k3). The teacher
    is the reference policy: use the context ``SameQuestion`` and ``FrozenTeacher``."""
    importance_clip: float | None = None
    """Weight tokens by min(p_S / p_old, this), for samplers that are another engine (SDPO: 2)."""
    overlong_limit: int | None = None
    """Completion length, in tokens, from which the reward is lowered by 1; between limit - margin
    and limit it is lowered in proportion (DAPO, eq. 13). None: no penalty."""
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
        check_positive(self, "importance_clip", "overlong_limit")
        if self.overlong_margin < 0 or self.overlong_margin > (self.overlong_limit or 0):
            raise ValueError(
                f"overlong_margin={self.overlong_margin}: from 0 to overlong_limit "
                f"({self.overlong_limit})."
            )

    @property
    def inputs(self) -> InputSpec:
        """The teacher as the reference policy of the KL term, and old log-probabilities."""
        uses = {"teacher": "required" if self.kl else "unused", "teacher_logits": self.kl > 0}
        names = ["old_logprobs"] if self.importance_clip else []
        return super().inputs.add(*names, **uses)

    def compute_advantages(self, rewards: Tensor, groups: Tensor) -> Tensor:
        """Return group advantages; see :func:`~lightning_sd.functional.group_advantages`."""
        return group_advantages(rewards, groups, scale=self.scale)

    def make_token_inputs(self, inputs: ObjectiveInputs, state: StepState) -> TokenInputs:
        """Give each token its rollout's advantage."""
        rewards = inputs.rewards
        if self.overlong_limit is not None:
            limits = {"limit": self.overlong_limit, "margin": self.overlong_margin}
            rewards = rewards + overlong_penalty(inputs.lengths, **limits)
        # A teacher's text that a context added is no sibling of the student's rollouts.
        own, advantages = inputs.by_student, torch.zeros_like(rewards)
        advantages[own] = self.compute_advantages(rewards[own], inputs.groups[own])
        return TokenInputs(inputs.ids, inputs.old_logprobs, inputs.expand_to_tokens(advantages))

    def logprob_loss(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: TokenInputs
    ) -> Tensor:
        """Return the surrogate at each token; see :class:`LogprobObjective`."""
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
