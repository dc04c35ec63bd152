"""Compute policy-gradient terms: group advantages, clipped surrogate, sampled-token estimators."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.groups import average_over_groups, sum_over_groups

LOG_RATIO_BOUND = 20.0
"""Bound of a log-ratio's absolute value before it is exponentiated."""


def group_advantages(
    rewards: Tensor, groups: Tensor, *, scale: Literal["std", "none"] = "std", eps: float = 1e-4
) -> Tensor:
    """Compute the advantage of each rollout over its group (GRPO, arXiv 2402.03300).

    ``(r - mean) / (std + eps)`` with the group's sample standard deviation. Groups of one rollout
    and groups with equal rewards get 0.

    Args:
        rewards: ``[rollouts]``.
        groups: ``[rollouts]``, integers; rollouts with equal numbers form one group.
        scale: ``std`` divides by the standard deviation; ``none`` only subtracts the mean
            (Dr. GRPO, arXiv 2503.20783).
        eps: Added to the standard deviation.

    Returns:
        ``[rollouts]``.

    Example:
        >>> group_advantages(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]), scale="none")
        tensor([ 0.5000, -0.5000,  0.0000])
    """
    centered = rewards - average_over_groups(rewards, groups)
    if scale == "none":
        return centered
    freedom = sum_over_groups(torch.ones_like(rewards), groups) - 1
    std = (sum_over_groups(centered**2, groups) / freedom.clamp(min=1)).sqrt()
    return centered / (std + eps)


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Tensor:
    """Compute PPO's clipped surrogate per token, negated to be minimized (arXiv 1707.06347, eq. 7).

    Args:
        logprobs: ``[...]``, the student's log-probability of the sampled token, with gradient.
        old_logprobs: ``[...]``, the same under the old policy: the student before the first
            optimizer step on these tokens. It is not the sampler's report; see
            :func:`importance_weight`.
        advantages: ``[...]``.
        clip_low: The ratio is at least ``1 - clip_low``.
        clip_high: The ratio is at most ``1 + clip_high`` (DAPO uses 0.28).

    Returns:
        ``[...]``.
    """
    ratio = (logprobs - old_logprobs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def importance_weight(logprobs: Tensor, behavior_logprobs: Tensor, *, clip: float = 2.0) -> Tensor:
    """Compute the truncated importance weight ``min(p / p_behavior, clip)``, without gradient.

    Args:
        logprobs: ``[...]``, log-probabilities of the sampled tokens under the old policy, which is
            the current one if tokens are trained on once.
        behavior_logprobs: ``[...]``, log-probabilities under the policy that drew the tokens; NaN
            (unknown) gives a ratio of 1.
        clip: Upper bound of the ratio (SDPO uses 2).

    Returns:
        ``[...]``.

    Example:
        >>> importance_weight(torch.tensor([0.4, 0.3]).log(), torch.tensor([0.1, 0.2]).log())
        tensor([2.0000, 1.5000])
    """
    log_ratio = (logprobs - behavior_logprobs).detach().nan_to_num(nan=0.0)
    return log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp().clamp(max=clip)


def sampled_token_loss(
    logprobs: Tensor, teacher_logprobs: Tensor, *, clip: float | None = None
) -> Tensor:
    """Compute a policy-gradient loss on the distillation advantage ``A = log p_T(y) - log p_S(y)``.

    In expectation over y the gradient is that of the reverse KL; the value is not a divergence.

    Args:
        logprobs: ``[...]``, the student's log-probabilities, with gradient.
        teacher_logprobs: ``[...]``.
        clip: Upper bound of |A|; None: no bound.

    Returns:
        ``[...]``, ``-A.detach() * logprobs``.
    """
    advantages = (teacher_logprobs - logprobs).detach()
    if clip is not None:
        advantages = advantages.clamp(-clip, clip)
    return -advantages * logprobs


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(student || reference) from the sampled token; the estimate is never negative.

    ``exp(d) - d - 1`` with ``d = log p_ref(y) - log p_S(y)`` (Schulman's third estimator; GRPO,
    arXiv 2402.03300, eq. 4).

    Args:
        logprobs: ``[...]``, the student's log-probabilities, with gradient.
        reference_logprobs: ``[...]``.

    Returns:
        ``[...]``.
    """
    gap = (reference_logprobs - logprobs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)
    return gap.expm1() - gap


def overlong_penalty(lengths: Tensor, *, limit: int, margin: int) -> Tensor:
    """Compute the reward penalty for long completions (DAPO, arXiv 2503.14476, eq. 13).

    0 up to ``limit - margin`` tokens, then linear down to -1 at ``limit`` tokens, and -1 beyond.

    Args:
        lengths: ``[rollouts]``, in tokens.
        limit: Length from which the penalty is -1, in tokens.
        margin: Length of the linear part, in tokens; 0 makes the penalty a step.

    Returns:
        ``[rollouts]``, between -1 and 0.

    Example:
        >>> overlong_penalty(torch.tensor([6, 8, 10, 11]), limit=10, margin=4)
        tensor([-0.0000, -0.5000, -1.0000, -1.0000])
    """
    over = (lengths - (limit - margin)).clamp(min=0).float()
    return -(over / margin).clamp(max=1) if margin else -(over > 0).float()
