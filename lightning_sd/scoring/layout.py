"""Lay out rows of unequal length for forward passes with little padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sd.models.cache import CALL_COST

Ids = Sequence[int]


def pack_rows(
    prompts: Sequence[Ids], completions: Sequence[Ids], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Join prompts and completions into one batch that is padded on the right.

    With padding on the right, positions start at 0 and causal attention never reads padding, so no
    attention mask is needed.

    Args:
        prompts: Token ids, one prompt per row.
        completions: Token ids, one completion per row.
        device: The device of the result.

    Returns:
        Ids ``[rows, longest]``; and for each completion token the index, in the flattened batch, of
        the position that predicts it, ``[tokens]``.

    Raises:
        ValueError: A prompt is empty.

    Example:
        >>> pack_rows([[5], [5, 6]], [[7, 8], [9]], torch.device("cpu"))
        (tensor([[5, 7, 8],
                [5, 6, 9]]), tensor([0, 1, 4]))
    """
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("A prompt is empty: the chat template gave no tokens for its messages.")
    longest = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    batch = torch.zeros(len(prompts), longest, dtype=torch.long)
    keep = []
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        joined = torch.tensor([*prompt, *completion])
        batch[row, : len(joined)] = joined
        start = row * longest + len(prompt) - 1
        keep.append(torch.arange(start, start + len(completion)))
    return batch.to(device), torch.cat(keep).to(device)


def bucket_rows(lengths: Sequence[int], *, call_cost: int = CALL_COST) -> list[list[int]]:
    """Group rows of similar length so that padding and calls together cost least.

    Args:
        lengths: Length of each row, in tokens.
        call_cost: Cost of each group beside its tokens, in tokens.

    Returns:
        Groups of row indices, ordered by decreasing length.

    Example:
        >>> bucket_rows([10, 900, 11, 901], call_cost=100)
        [[3, 1], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    best = [0.0] + [float("inf")] * len(order)
    cut = [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        for start in range(end):
            cost = best[start] + lengths[order[start]] * (end - start) + call_cost
            if cost < best[end]:
                best[end], cut[end] = cost, start
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]
