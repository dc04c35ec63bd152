"""Shape rewards by the student's distance from its teacher, and normalize them per group."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sd.functional.groups import average_over_groups

EQUAL = 1e-5
"""Standard deviations below this are rounding errors; the group's rewards count as equal."""


def shaped_rewards(rewards: Tensor, similarity: Tensor, *, bonus: float) -> Tensor:
    """Add EchoDistill's bonus for agreement with the teacher to positive rewards.

    Returns ``clip(r + bonus * s, -1, 2)`` where r > 0, and ``clip(r, -1, 2)`` elsewhere.

    Args:
        rewards: ``[rollouts]``.
        similarity: ``[rollouts]``, s in [0, 1]: exp of minus the divergence from the teacher.
        bonus: The weight of the similarity.

    Returns:
        ``[rollouts]``.

    Example:
        >>> shaped_rewards(torch.tensor([1.0, -1.0, 0.0]), torch.full((3,), 0.5), bonus=0.5)
        tensor([ 1.2500, -1.0000,  0.0000])
    """
    return (rewards + bonus * similarity * (rewards > 0)).clamp(-1.0, 2.0)


def population_advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    """Normalize rewards per group: ``(r - mean) / std`` with the population standard deviation.

    Args:
        rewards: ``[rollouts]``.
        groups: ``[rollouts]``, integers; rollouts with equal numbers form one group.

    Returns:
        ``[rollouts]``; 0 in groups of one rollout and in groups with equal rewards.

    Example:
        >>> population_advantages(torch.tensor([1.0, 0.0, 0.3, 0.3]), torch.tensor([0, 0, 1, 1]))
        tensor([ 1., -1.,  0.,  0.])
    """
    centered = rewards - average_over_groups(rewards, groups)
    std = average_over_groups(centered**2, groups).sqrt()
    return torch.where(std > EQUAL, centered / std.clamp(min=EQUAL), torch.zeros_like(centered))
