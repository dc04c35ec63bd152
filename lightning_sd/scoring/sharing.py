"""What rows have in common, and whether it pays to encode that only once.

Completions of one question share its whole prompt. Prompts of different questions, or a question's
attempts with a critique each, often share their beginning: a system turn, worked examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_sd.prompts import MediaPrompt, has_media
from lightning_sd.scoring.layout import Ids, buckets


@dataclass(frozen=True)
class Shared:
    """Rows split into beginnings, encoded once each, and what follows them."""

    heads: Sequence[Ids]
    """The distinct beginnings, not empty."""
    index: Sequence[int]
    """Which of them each row has."""
    tails: Sequence[Ids]
    """The rest of each row; it ends with the row's completion."""

    def cost(self, call_cost: int) -> int:
        """Tokens of both forward passes, padding and calls included."""
        head, tail = max(map(len, self.heads)), max(map(len, self.tails)) - 1
        return len(self.heads) * head + len(self.tails) * tail + 2 * call_cost


def cheapest(
    prompts: Sequence[Ids], completions: Sequence[Ids], *, call_cost: int
) -> Shared | None:
    """The way to share that costs least, or None where whole rows cost less.

    It reads ids and lengths only, so student and teacher with equal prompts are laid out alike, and
    equal weights then give equal numbers to the last bit.

    Args:
        prompts: One a row, not empty.
        completions: One a row, not empty.
        call_cost: What a forward pass costs beside its tokens, in tokens.

    Example:
        >>> rows = [[1] * 200] * 4, [[2] * 10] * 4
        >>> [cheapest(*rows, call_cost=cost) is not None for cost in (500, 700)]
        [True, False]
    """
    ways = [by_prompt(prompts, completions)]
    if has_media(prompts):
        # A sound is encoded once a prompt. And a completion may hold the token that stands for
        # sounds: laid out behind its prompt it would be taken for one.
        return ways[0]
    if length := common_beginning(ways[0].heads):
        ways.append(by_beginning(prompts, completions, length))
    ways = [way for way in ways if len(way.heads) < len(prompts)]
    if not ways:
        return None
    best = min(ways, key=lambda way: way.cost(call_cost))
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    cost = best.cost(call_cost)
    # Less than whole rows without any padding: no need to see how they would be padded.
    if cost < sum(lengths) + call_cost:
        return best
    groups = buckets(lengths, call_cost=call_cost)
    whole = sum(lengths[group[0]] * len(group) + call_cost for group in groups)
    return best if cost < whole else None


def by_prompt(prompts: Sequence[Ids], completions: Sequence[Ids]) -> Shared:
    """Each distinct prompt once, for all its completions."""
    distinct, index = shared_prompts(prompts)
    return Shared(distinct, index, completions)


def by_beginning(prompts: Sequence[Ids], completions: Sequence[Ids], length: int) -> Shared:
    """The first ``length`` tokens once for all rows.

    Example:
        >>> by_beginning([[1, 2, 3], [1, 2]], [[4], [5]], 2)
        Shared(heads=[[1, 2]], index=[0, 0], tails=[[3, 4], [5]])
    """
    tails = [[*p[length:], *c] for p, c in zip(prompts, completions, strict=True)]
    return Shared([list(prompts[0][:length])], [0] * len(tails), tails)


def common_beginning(prompts: Sequence[Ids]) -> int:
    """Number of tokens with which all of them begin.

    Example:
        >>> common_beginning([[1, 2, 3], [1, 2], [1, 2, 4]])
        2
    """
    # Between the first and the last in order lie all others, with at least what these share.
    lists = [list(prompt) for prompt in prompts]
    first, last = min(lists), max(lists)
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


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
