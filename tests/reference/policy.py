"""Slow policy-gradient losses (PPO's clipped surrogate, GRPO's group advantages), one at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from tests.reference.divergence import softmax


def group_advantages(
    rewards: Sequence[float], groups: Sequence[int], *, scale: str, eps: float
) -> list[float]:
    result = []
    for reward, group in zip(rewards, groups, strict=True):
        siblings = [r for r, g in zip(rewards, groups, strict=True) if g == group]
        mean = sum(siblings) / len(siblings)
        if len(siblings) == 1:
            result.append(0.0)
            continue
        variance = sum((r - mean) ** 2 for r in siblings) / (len(siblings) - 1)
        divisor = math.sqrt(variance) + eps if scale == "std" else 1.0
        result.append((reward - mean) / divisor)
    return result


def surrogate(
    logits: Tensor,
    token: int,
    *,
    old_logprob: float | None,
    advantage: float,
    clip_low: float,
    clip_high: float,
    temperature: float = 1.0,
) -> Tensor:
    """Negated clipped surrogate of one token, ``[vocab]`` logits."""
    logprob = softmax(logits, temperature)[token].log()
    old = logprob.item() if old_logprob is None else old_logprob
    ratio = (logprob - old).exp()
    low, high = 1 - clip_low, 1 + clip_high
    # The minimum of r A and clip(r) A is flat exactly where the clip is the worse of the two.
    if advantage >= 0 and ratio.item() > high:
        return -(high * advantage) + 0 * ratio
    if advantage < 0 and ratio.item() < low:
        return -(low * advantage) + 0 * ratio
    return -ratio * advantage
