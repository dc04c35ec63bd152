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
from lightning_sd.objectives.importance import (
    Level,
    check_importance,
    list_importance_inputs,
    make_behavior_logprobs,
)
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.logprob_objective import LogprobObjective
from lightning_sd.objectives.spec import InputSpec


@dataclass(frozen=True)
class PolicyGradient(LogprobObjective):
    """Clipped policy gradient on group advantages (GRPO and its relatives).

    ``SelfDistillModule`` trains on each rollout once. The old policy is then the current student,
    the ratio is exactly 1, and its clips do not act. They act if a loop of your own trains on
    rollouts again and gives ``ObjectiveInputs.old_logprobs``.

    With ``importance_clip`` the clipped surrogate is multiplied by min(p_old / p_behavior, clip)
    without gradient (SDPO, eq. 12), where p_behavior is what the sampler reports. Trained once, the
    gradient is A min(p_S / p_behavior, clip) times that of log p_S.

    GRPO: the defaults with ``reduction: sequence``. Dr. GRPO: ``scale: none`` and
    ``reduction: constant``. DAPO: ``clip_high: 0.28``, ``overlong_limit`` and ``overlong_margin``,
    and the token weights ``MixedGroups`` (groups are dropped, not sampled again) and
    ``FinishedOnly``.
    """

    clip_low: float = 0.2
    """The ratio to the old policy is clipped below at 1 - this (GRPO: 0.2)."""
    clip_high: float = 0.2
    """The ratio is clipped above at 1 + this (DAPO: 0.28)."""
    scale: Literal["std", "none"] = "std"
    """Divide the advantage by the group's standard deviation (GRPO), or not (Dr. GRPO)."""
    kl: float = 0.0
    """Weight of KL(student || reference policy), estimated at the sampled token (k3). The teacher
    is the reference policy: use the context ``SameQuestion`` and ``FrozenTeacher``."""
    importance_clip: float | None = None
    """Upper bound of the importance weight, for samplers that are another engine (SDPO: 2)."""
    importance: Level = "token"
    """``token``: one weight per token. ``sequence``: one weight per completion, from the product of
    its tokens' ratios; it costs one more product with the output head, without a gradient."""
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
        check_positive(self, "overlong_limit")
        check_importance(self.importance_clip, self.importance)
        if self.overlong_margin < 0 or self.overlong_margin > (self.overlong_limit or 0):
            raise ValueError(
                f"overlong_margin={self.overlong_margin}: from 0 to overlong_limit "
                f"({self.overlong_limit})."
            )

    @property
    def inputs(self) -> InputSpec:
        """The teacher as the reference policy of the KL term, and what the weights need."""
        uses = {"teacher": "required" if self.kl else "unused", "teacher_logits": self.kl > 0}
        names = list_importance_inputs(self.importance_clip, self.importance)
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
        return TokenInputs(
            inputs.ids,
            inputs.old_logprobs,
            inputs.expand_to_tokens(advantages),
            behavior_logprobs=make_behavior_logprobs(inputs, self.importance),
        )

    def logprob_loss(
        self, logprobs: Tensor, teacher_logprobs: Tensor | None, tokens: TokenInputs
    ) -> Tensor:
        """Return the surrogate at each token; see :class:`LogprobObjective`."""
        assert tokens.advantages is not None
        old = logprobs.detach() if tokens.old_logprobs is None else tokens.old_logprobs
        loss = clipped_policy_loss(
            logprobs,
            old,
            tokens.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
        )
        if self.importance_clip is not None and tokens.behavior_logprobs is not None:
            loss = loss * importance_weight(
                old, tokens.behavior_logprobs, clip=self.importance_clip
            )
        if self.kl and teacher_logprobs is not None:
            loss = loss + self.kl * k3(logprobs, teacher_logprobs)
        return loss
