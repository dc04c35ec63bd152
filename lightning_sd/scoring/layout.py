"""How rows of unequal length are laid out for a forward pass with little waste."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Ids = Sequence[int]

CALL_COST = 512
"""What another forward pass costs, in tokens: padding below this is not worth a bucket."""


def pack(
    prompts: Sequence[Ids], completions: Sequence[Ids], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Join prompts and completions into one right-padded batch.

    Padding stands on the right, so positions count from 0 and causal attention never sees it:
    no attention mask is needed.

    Args:
        prompts: One a row.
        completions: One a row.
        device: Where the tensors go.

    Returns:
        Ids ``[rows, longest]``, and for each completion token the index of the position that
        predicts it in the flattened batch, ``[tokens]``.

    Raises:
        ValueError: An empty prompt.

    Example:
        >>> pack([[5], [5, 6]], [[7, 8], [9]], torch.device("cpu"))
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


def buckets(lengths: Sequence[int], *, call_cost: int = CALL_COST) -> list[list[int]]:
    """Split rows into groups of like length so that padding plus calls cost least.

    Args:
        lengths: Tokens of each row.
        call_cost: Cost of a further group, in tokens.

    Returns:
        Groups of row numbers; their order is that of falling length.

    Example:
        >>> buckets([10, 900, 11, 901], call_cost=100)
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
