"""How rows of unequal length are laid out for a forward pass with little waste."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sd.prompts import MediaPrompt

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


def shared_prompts(prompts: Sequence[Ids]) -> tuple[list[Ids], list[int]]:
    """The distinct prompts, and which of them each row has.

    Prompts with sounds or images are compared by object: their ids say nothing of what is heard.

    Example:
        >>> shared_prompts([[1, 2], [3], [1, 2]])
        ([[1, 2], [3]], [0, 1, 0])
    """
    number: dict[tuple[int, ...], int] = {}
    distinct: list[Ids] = []
    index = []
    for prompt in prompts:
        media = isinstance(prompt, MediaPrompt)
        place = number.setdefault((-id(prompt),) if media else tuple(prompt), len(distinct))
        if place == len(distinct):
            distinct.append(prompt if media else list(prompt))
        index.append(place)
    return distinct, index


def sharing_pays(
    distinct: Sequence[Ids], prompts: Sequence[Ids], completions: Sequence[Ids], *, call_cost: int
) -> bool:
    """Whether encoding each distinct prompt once, in a call of its own, costs less than whole rows.

    It reads lengths only, so student and teacher with equal prompts are laid out alike, and equal
    weights then give equal numbers to the last bit.

    Args:
        distinct: The distinct prompts.
        prompts: One a row.
        completions: One a row, not empty.
        call_cost: What a forward pass costs beside its tokens, in tokens.

    Example:
        >>> rows = [[1] * 200] * 4, [[2] * 10] * 4
        >>> [sharing_pays([[1] * 200], *rows, call_cost=cost) for cost in (500, 700)]
        [True, False]
    """
    rows = len(prompts)
    if len(distinct) == rows:
        return False
    longest, later = max(map(len, distinct)), max(map(len, completions)) - 1
    shared = len(distinct) * longest + rows * later + 2 * call_cost
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    if shared < sum(lengths) + call_cost:  # less than whole rows without any padding
        return True
    groups = buckets(lengths, call_cost=call_cost)
    return shared < sum(lengths[group[0]] * len(group) + call_cost for group in groups)
