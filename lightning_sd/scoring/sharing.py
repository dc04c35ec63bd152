"""What rows have in common, and whether it pays to encode that only once.

Completions of one question share its whole prompt. Attempts with a critique each share the question
before it; all questions of a batch may share a system turn and worked examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_sd.models.media import MediaPrompt, has_media
from lightning_sd.scoring.layout import Ids, buckets


@dataclass(frozen=True)
class Shared:
    """Rows split into beginnings, encoded once each, and what follows them."""

    heads: Sequence[Ids]
    """The beginnings, not empty."""
    index: Sequence[int]
    """Which of them each row has."""
    tails: Sequence[Ids]
    """The rest of each row; it ends with the row's completion."""


@dataclass(frozen=True)
class Split:
    """Groups of distinct prompts, and how many tokens all prompts of a group begin with."""

    groups: list[list[int]]
    lengths: list[int]


def cheapest(
    prompts: Sequence[Ids], completions: Sequence[Ids], *, call_cost: int
) -> Shared | None:
    """The way to share that costs least, or None where whole rows cost less.

    It reads prompts and lengths only, so student and teacher with equal prompts are laid out alike,
    and equal weights then give equal numbers to the last bit.

    Args:
        prompts: One a row, not empty.
        completions: One a row, not empty.
        call_cost: What a forward pass costs beside its tokens, in tokens.

    Example:
        >>> rows = [[1] * 200] * 4, [[2] * 10] * 4
        >>> [cheapest(*rows, call_cost=cost) is not None for cost in (500, 700)]
        [True, False]
    """
    distinct, index = shared_prompts(prompts)
    if has_media(prompts):
        # A sound is encoded once a prompt. And a completion may hold the token that stands for
        # sounds: laid out behind its prompt it would be taken for one.
        return Shared(distinct, index, completions)
    # The longest completion of each distinct prompt decides how far its rows are padded.
    ends = [0] * len(distinct)
    for place, completion in zip(index, completions, strict=True):
        ends[place] = max(ends[place], len(completion))

    def cost(split: Split) -> int:
        """Tokens of both forward passes, padding and calls included."""
        tails = [
            len(distinct[i]) - length + ends[i]
            for group, length in zip(split.groups, split.lengths, strict=True)
            for i in group
        ]
        heads = len(split.groups) * max(split.lengths)
        return heads + len(prompts) * (max(tails) - 1) + 2 * call_cost

    ways = [split for split in splits(distinct) if len(split.groups) < len(prompts)]
    if not ways:
        return None
    least, best = min(((cost(split), split) for split in ways), key=lambda way: way[0])
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    # Where it is less than whole rows without any padding, no need to see how they would be padded.
    if least >= sum(lengths) + call_cost:
        groups = buckets(lengths, call_cost=call_cost)
        if least >= sum(lengths[group[0]] * len(group) + call_cost for group in groups):
            return None
    return share(best, distinct, index, completions)


def splits(distinct: Sequence[list[int]]) -> Iterator[Split]:
    """Each prompt for itself; then those together that begin alike for ever fewer tokens.

    Example:
        >>> for split in splits([[1, 2], [5, 6], [5, 7]]):
        ...     print(split.groups, split.lengths)
        [[0], [1], [2]] [2, 2, 2]
        [[0], [1, 2]] [2, 1]
    """
    yield Split([[i] for i in range(len(distinct))], [len(prompt) for prompt in distinct])
    # In this order prompts that begin alike stand side by side.
    order = sorted(range(len(distinct)), key=lambda i: distinct[i])
    common = [_common(distinct[i], distinct[j]) for i, j in pairwise(order)]
    for depth in sorted({length for length in common if length}, reverse=True):
        groups, lengths = [[order[0]]], [len(distinct[order[0]])]
        for i, length in zip(order[1:], common, strict=True):
            if length >= depth:
                groups[-1].append(i)
                lengths[-1] = min(lengths[-1], length)
            else:
                groups.append([i])
                lengths.append(len(distinct[i]))
        yield Split(groups, lengths)


def share(
    split: Split, distinct: Sequence[Ids], index: Sequence[int], completions: Sequence[Ids]
) -> Shared:
    """Rows as a split of their distinct prompts has them.

    Example:
        >>> share(Split([[0, 1]], [2]), [[1, 2, 3], [1, 2]], [0, 1], [[4], [5]])
        Shared(heads=[[1, 2]], index=[0, 0], tails=[[3, 4], [5]])
    """
    group_of = {i: number for number, group in enumerate(split.groups) for i in group}
    heads = [
        distinct[group[0]][:length]
        for group, length in zip(split.groups, split.lengths, strict=True)
    ]
    tails = [
        [*distinct[i][split.lengths[group_of[i]] :], *completion]
        for i, completion in zip(index, completions, strict=True)
    ]
    return Shared(heads, [group_of[i] for i in index], tails)


def _common(first: Ids, second: Ids) -> int:
    """Tokens with which both begin."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def shared_prompts(prompts: Sequence[Ids]) -> tuple[list[list[int]], list[int]]:
    """The distinct prompts, and which of them each row has.

    Prompts with sounds or images are compared by object: their ids say nothing of what is heard.

    Example:
        >>> shared_prompts([[1, 2], [3], [1, 2]])
        ([[1, 2], [3]], [0, 1, 0])
    """
    number: dict[tuple[int, ...], int] = {}
    distinct: list[list[int]] = []
    index = []
    for prompt in prompts:
        media = isinstance(prompt, MediaPrompt)
        place = number.setdefault((-id(prompt),) if media else tuple(prompt), len(distinct))
        if place == len(distinct):
            distinct.append(prompt if isinstance(prompt, MediaPrompt) else list(prompt))
        index.append(place)
    return distinct, index
