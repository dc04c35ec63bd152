"""Map tokens to characters, and the steps of a solution to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sd.text.steps import Span


@dataclass(frozen=True)
class Pieces:
    """A completion, split into the text that each token adds."""

    texts: tuple[str, ...]
    """One text per token; joined they give ``text``. Empty for a special token and for the first
    part of a character that a later token completes."""
    spans: tuple[Span, ...]
    """Characters of each token in ``text``. Tokens that share a character share its span; the span
    of a special token is empty."""
    names: tuple[str | None, ...]
    """Name of each special token, None for other tokens."""

    @property
    def text(self) -> str:
        """The completion, decoded without its special tokens."""
        return "".join(self.texts)


def split_tokens(tokenizer: Any, ids: Sequence[int]) -> Pieces:
    """Decode a completion token by token, in linear time.

    Each token is decoded together with a few earlier ones, because a tokenizer may treat the first
    token of a text differently. An incomplete character is completed by the tokens that follow.

    Args:
        tokenizer: A transformers tokenizer.
        ids: The completion's token ids.

    Returns:
        The text, span and special name of each token.
    """
    ids, special = list(ids), set(tokenizer.all_special_ids)
    texts, spans = [""] * len(ids), [(0, 0)] * len(ids)
    names = [str(tokenizer.convert_ids_to_tokens(i)) if i in special else None for i in ids]
    position = 0
    window, read = 0, 0  # tokens[window:read] are decoded and serve as left context
    waiting: list[int] = []
    for index, token in enumerate(ids):
        if token in special:
            spans[index] = (position, position)
            continue
        waiting.append(index)
        known = tokenizer.decode(ids[window:read], skip_special_tokens=True)
        grown = tokenizer.decode(ids[window : index + 1], skip_special_tokens=True)
        # Bytes that never form a character are given up after 8 tokens.
        ends_inside = grown.endswith("\ufffd") and len(waiting) < 8
        if ends_inside or len(grown) <= len(known):
            continue
        texts[index] = grown[len(known) :]
        for waited in waiting:
            spans[waited] = (position, position + len(texts[index]))
        position += len(texts[index])
        window, read, waiting = waiting[0], index + 1, []
    if waiting:  # the completion ends inside a character
        known = tokenizer.decode(ids[window:read], skip_special_tokens=True)
        rest = tokenizer.decode(ids[window:], skip_special_tokens=True)[len(known) :]
        texts[waiting[-1]] = rest
        for waited in waiting:
            spans[waited] = (position, position + len(rest))
    return Pieces(tuple(texts), tuple(spans), tuple(names))


def find_step_tokens(spans: Sequence[Span], steps: Sequence[Span]) -> tuple[Span, ...]:
    """Find the tokens of each step.

    A token that crosses a step boundary belongs to the side that holds more of its characters, and
    to the earlier side in a tie.

    Args:
        spans: Characters of each token, from ``Pieces.spans``.
        steps: Characters of each step, ascending, from ``StepTrace.spans``.

    Returns:
        (first token, last token + 1) of each step; both are equal for a step without a token.

    Example:
        >>> find_step_tokens([(0, 4), (4, 9), (9, 12)], [(0, 5), (5, 12)])
        ((0, 1), (1, 3))
    """
    cuts = sorted({0, *(edge for step in steps for edge in step)})
    owners = [_find_owner(span, cuts) for span in spans]
    return tuple(
        (
            sum(owner < start for owner in owners),
            sum(owner < end for owner in owners),
        )
        for start, end in steps
    )


def _find_owner(span: Span, cuts: Sequence[int]) -> int:
    """Return the start of the interval between two cuts that holds most of a span."""
    start, end = span
    ends = [*cuts[1:], max(end, cuts[-1]) + 1]
    if start == end:
        return max(cut for cut in cuts if cut <= start)
    return max(
        zip(cuts, ends, strict=True), key=lambda part: min(end, part[1]) - max(start, part[0])
    )[0]
