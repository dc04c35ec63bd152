"""Sum and average over groups of rollouts that answer the same question."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_over_groups(values: Tensor, groups: Tensor) -> Tensor:
    """Give each rollout the sum over its group.

    Args:
        values: ``[rollouts]``.
        groups: ``[rollouts]``, integers; rollouts with equal numbers form one group.

    Returns:
        ``[rollouts]``, float32 or wider.

    Example:
        >>> sum_over_groups(torch.tensor([1.0, 0.5, 1.0]), torch.tensor([7, 7, 9]))
        tensor([1.5000, 1.5000, 1.0000])
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    _, index = torch.unique(groups, return_inverse=True)
    sums = wide.new_zeros(int(index.max()) + 1 if len(index) else 0)
    return sums.index_add(0, index, wide)[index]


def average_over_groups(values: Tensor, groups: Tensor, among: Tensor | None = None) -> Tensor:
    """Give each rollout the mean over its group.

    Args:
        values: ``[rollouts]``.
        groups: ``[rollouts]``, integers; rollouts with equal numbers form one group.
        among: ``[rollouts]``, bool: which rollouts are counted. Default: all.

    Returns:
        ``[rollouts]``, float32 or wider; 0 for a group in which nothing is counted.

    Example:
        >>> average_over_groups(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([7, 7, 9]))
        tensor([0.5000, 0.5000, 1.0000])
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    counted = torch.ones_like(wide) if among is None else among.to(wide.dtype)
    sizes = sum_over_groups(counted, groups)
    return sum_over_groups(wide * counted, groups) / sizes.clamp(min=1)
