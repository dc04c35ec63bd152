"""Means over groups of rollouts that answer the same question."""

from __future__ import annotations

import torch
from torch import Tensor


def average_over_groups(values: Tensor, groups: Tensor, among: Tensor | None = None) -> Tensor:
    """Give each rollout the mean over its group.

    Args:
        values: ``[rollouts]``.
        groups: ``[rollouts]``; equal numbers belong together.
        among: ``[rollouts]``, bool: which rollouts are counted. Default: all.

    Returns:
        ``[rollouts]``, float32 or wider; 0 for a group in which nothing is counted.

    Example:
        >>> average_over_groups(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([7, 7, 9]))
        tensor([0.5000, 0.5000, 1.0000])
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    counted = torch.ones_like(wide) if among is None else among.to(wide.dtype)
    _, index = torch.unique(groups, return_inverse=True)
    zeros = wide.new_zeros(int(index.max()) + 1 if len(index) else 0)
    sizes = zeros.index_add(0, index, counted)
    sums = zeros.index_add(0, index, wide * counted)
    return (sums / sizes.clamp(min=1))[index]
