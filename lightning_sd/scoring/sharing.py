"""Find the prefixes that rows share, and whether encoding them once is cheaper.

Completions of one question share its whole prompt. Prompts with a critique per attempt share the
question before it. All questions of a batch may share a system turn and worked examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lightning_sd.models.media import MediaPrompt, has_media
from lightning_sd.scoring.layout import Ids, bucket_rows


@dataclass(frozen=True)
class SharedRows:
    """Rows split into prefixes, which are encoded once each, and tails."""

    prefixes: Sequence[Ids]
    """The prefixes; none is empty."""
    index: Sequence[int]
    """Index of each row's prefix."""
    tails: Sequence[Ids]
    """The remaining tokens of each row, which end with its completion."""


@dataclass(frozen=True)
class PrefixSplit:
    """Groups of distinct prompts, and the length of the prefix that each group shares."""

    groups: list[list[int]]
    """Indices of the prompts of each group."""
    lengths: list[int]
    """Length of each group's prefix, in tokens."""


def find_cheapest_sharing(
    prompts: Sequence[Ids], completions: Sequence[Ids], *, call_cost: int
) -> SharedRows | None:
    """Find the cheapest way to share prefixes; None where whole rows cost less.

    The choice depends on the prompts and the lengths only. Student and teacher with equal prompts
    therefore have the same layout, and equal weights give equal results to the last bit.

    Args:
        prompts: Token ids, one prompt per row; none is empty.
        completions: Token ids, one completion per row; none is empty.
        call_cost: Cost of a forward pass beside its tokens, in tokens.

    Example:
        >>> rows = [[1] * 200] * 4, [[2] * 10] * 4
        >>> [find_cheapest_sharing(*rows, call_cost=cost) is not None for cost in (500, 700)]
        [True, False]
    """
    distinct, index = deduplicate_prompts(prompts)
    if has_media(prompts):
        # Each sound is encoded once. In a separate pass, a completion that holds the sound's
        # placeholder token is not mistaken for a sound.
        return SharedRows(distinct, index, completions)
    # The longest completion of each distinct prompt decides the padding of its rows.
    ends = [0] * len(distinct)
    for place, completion in zip(index, completions, strict=True):
        ends[place] = max(ends[place], len(completion))

    def compute_cost(split: PrefixSplit) -> int:
        """Return the tokens of both forward passes, with padding and the cost of the calls."""
        tails = [
            len(distinct[i]) - length + ends[i]
            for group, length in zip(split.groups, split.lengths, strict=True)
            for i in group
        ]
        prefixes = len(split.groups) * max(split.lengths)
        return prefixes + len(prompts) * (max(tails) - 1) + 2 * call_cost

    ways = [split for split in iterate_splits(distinct) if len(split.groups) < len(prompts)]
    if not ways:
        return None
    least, best = min(((compute_cost(split), split) for split in ways), key=lambda way: way[0])
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    # If it is cheaper than whole rows without padding, their padding need not be computed.
    if least >= sum(lengths) + call_cost:
        groups = bucket_rows(lengths, call_cost=call_cost)
        if least >= sum(lengths[group[0]] * len(group) + call_cost for group in groups):
            return None
    return apply_split(best, distinct, index, completions)


def iterate_splits(distinct: Sequence[list[int]]) -> Iterator[PrefixSplit]:
    """Yield one group per prompt, then larger and larger groups with shorter and shorter prefixes.

    Example:
        >>> for split in iterate_splits([[1, 2], [5, 6], [5, 7]]):
        ...     print(split.groups, split.lengths)
        [[0], [1], [2]] [2, 2, 2]
        [[0], [1, 2]] [2, 1]
    """
    yield PrefixSplit([[i] for i in range(len(distinct))], [len(prompt) for prompt in distinct])
    # Sorting puts prompts with the same prefix side by side.
    order = sorted(range(len(distinct)), key=lambda i: distinct[i])
    common = [_count_common(distinct[i], distinct[j]) for i, j in pairwise(order)]
    for depth in sorted({length for length in common if length}, reverse=True):
        groups, lengths = [[order[0]]], [len(distinct[order[0]])]
        for i, length in zip(order[1:], common, strict=True):
            if length >= depth:
                groups[-1].append(i)
                lengths[-1] = min(lengths[-1], length)
            else:
                groups.append([i])
                lengths.append(len(distinct[i]))
        yield PrefixSplit(groups, lengths)


def apply_split(
    split: PrefixSplit, distinct: Sequence[Ids], index: Sequence[int], completions: Sequence[Ids]
) -> SharedRows:
    """Split rows into prefixes and tails, given a split of their distinct prompts.

    Example:
        >>> apply_split(PrefixSplit([[0, 1]], [2]), [[1, 2, 3], [1, 2]], [0, 1], [[4], [5]])
        SharedRows(prefixes=[[1, 2]], index=[0, 0], tails=[[3, 4], [5]])
    """
    group_of = {i: number for number, group in enumerate(split.groups) for i in group}
    prefixes = [
        distinct[group[0]][:length]
        for group, length in zip(split.groups, split.lengths, strict=True)
    ]
    tails = [
        [*distinct[i][split.lengths[group_of[i]] :], *completion]
        for i, completion in zip(index, completions, strict=True)
    ]
    return SharedRows(prefixes, [group_of[i] for i in index], tails)


def _count_common(first: Ids, second: Ids) -> int:
    """Count the tokens of the longest common prefix."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def deduplicate_prompts(prompts: Sequence[Ids]) -> tuple[list[list[int]], list[int]]:
    """Find the distinct prompts, and the index of each row's prompt among them.

    Prompts with sounds or images are compared by object, because their ids do not identify them.

    Example:
        >>> deduplicate_prompts([[1, 2], [3], [1, 2]])
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
