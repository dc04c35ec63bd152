"""Rewards shaped by how near the student is to its teacher, and their group advantages."""

from __future__ import annotations

import torch
from torch import Tensor

EQUAL = 1e-5
"""Standard deviations below this are rounding: the rewards of the group are equal."""


def shaped_rewards(rewards: Tensor, similarity: Tensor, *, bonus: float) -> Tensor:
    """EchoDistill's reward: a bonus for agreeing with the teacher, for right answers only.

    ``clip(r + bonus * s, -1, 2)`` where r > 0, else ``clip(r, -1, 2)``.

    Args:
        rewards: ``[rollouts]``.
        similarity: ``[rollouts]``, s in [0, 1]: exp of minus the divergence from the teacher.
        bonus: Its weight.

    Returns:
        ``[rollouts]``.

    Example:
        >>> shaped_rewards(torch.tensor([1.0, -1.0, 0.0]), torch.full((3,), 0.5), bonus=0.5)
        tensor([ 1.2500, -1.0000,  0.0000])
    """
    return (rewards + bonus * similarity * (rewards > 0)).clamp(-1.0, 2.0)


def population_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    """``(r - mean) / std`` over each group, with the population's standard deviation.

    Args:
        rewards: ``[rollouts]``.
        groups: ``[rollouts]``, any integers; equal numbers are one group.

    Returns:
        ``[rollouts]``; 0 throughout a group whose rewards are equal, or that is one rollout.

    Example:
        >>> population_advantages(torch.tensor([1.0, 0.0, 0.3, 0.3]), torch.tensor([0, 0, 1, 1]))
        tensor([ 1., -1.,  0.,  0.])
    """
    _, index = torch.unique(groups, return_inverse=True)
    size = torch.bincount(index).to(rewards.dtype)
    mean = torch.zeros_like(size).index_add_(0, index, rewards) / size
    centred = rewards - mean[index]
    std = (torch.zeros_like(size).index_add_(0, index, centred**2) / size).sqrt()[index]
    return torch.where(std > EQUAL, centred / std.clamp(min=EQUAL), torch.zeros_like(centred))
