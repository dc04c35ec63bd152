"""Which characters each token stands for, and which tokens each step of a solution holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sd.text.steps import Span


@dataclass(frozen=True)
class Pieces:
    """A completion, taken apart into what each token adds to the decoded text."""

    texts: tuple[str, ...]
    """One a token; joined they give ``text``. Empty: a special token, or the first part of a
    character that a later token completes."""
    spans: tuple[Span, ...]
    """Where each token stands in ``text``. Tokens that share a character share its span; special
    tokens have an empty one."""
    names: tuple[str | None, ...]
    """The name of each special token, None for all others."""

    @property
    def text(self) -> str:
        """The completion, decoded without special tokens."""
        return "".join(self.texts)


def token_pieces(tokenizer: Any, ids: Sequence[int]) -> Pieces:
    """Decode a completion token by token, in time that grows with its length only.

    A token is decoded together with the few before it, since a tokenizer may treat the first token
    of a text differently. Bytes that are no whole character yet wait for the tokens that follow.

    Args:
        tokenizer: A transformers tokenizer.
        ids: The completion's token ids.

    Returns:
        One piece a token.
    """
    ids, special = list(ids), set(tokenizer.all_special_ids)
    texts, spans = [""] * len(ids), [(0, 0)] * len(ids)
    names = [str(tokenizer.convert_ids_to_tokens(i)) if i in special else None for i in ids]
    position = 0
    window, read = 0, 0  # the tokens window..read are decoded already and give the context
    waiting: list[int] = []
    for index, token in enumerate(ids):
        if token in special:
            spans[index] = (position, position)
            continue
        waiting.append(index)
        known = tokenizer.decode(ids[window:read], skip_special_tokens=True)
        grown = tokenizer.decode(ids[window : index + 1], skip_special_tokens=True)
        # Rows of bytes that never become a character are not waited for without end.
        ends_inside = grown.endswith("\ufffd") and len(waiting) < 8
        if ends_inside or len(grown) <= len(known):
            continue
        texts[index] = grown[len(known) :]
        for waited in waiting:
            spans[waited] = (position, position + len(texts[index]))
        position += len(texts[index])
        window, read, waiting = waiting[0], index + 1, []
    if waiting:  # the completion breaks off inside a character
        known = tokenizer.decode(ids[window:read], skip_special_tokens=True)
        rest = tokenizer.decode(ids[window:], skip_special_tokens=True)[len(known) :]
        texts[waiting[-1]] = rest
        for waited in waiting:
            spans[waited] = (position, position + len(rest))
    return Pieces(tuple(texts), tuple(spans), tuple(names))


def step_tokens(spans: Sequence[Span], steps: Sequence[Span]) -> tuple[Span, ...]:
    """Find the tokens of each step.

    A token that reaches over a boundary belongs to the stretch that holds most of its characters,
    to the earlier one of two that hold as many.

    Args:
        spans: Characters of each token, as :func:`token_pieces` gives them.
        steps: Characters of each step, ascending, as ``StepTrace.spans`` holds them.

    Returns:
        For each step the first of its tokens and the one behind its last; both are the same for a
        step that got no token of its own.

    Example:
        >>> step_tokens([(0, 4), (4, 9), (9, 12)], [(0, 5), (5, 12)])
        ((0, 1), (1, 3))
    """
    cuts = sorted({0, *(edge for step in steps for edge in step)})
    owners = [_owner(span, cuts) for span in spans]
    return tuple(
        (
            sum(owner < start for owner in owners),
            sum(owner < end for owner in owners),
        )
        for start, end in steps
    )


def _owner(span: Span, cuts: Sequence[int]) -> int:
    """Start of the stretch between two cuts that holds most of a span."""
    start, end = span
    ends = [*cuts[1:], max(end, cuts[-1]) + 1]
    if start == end:
        return max(cut for cut in cuts if cut <= start)
    return max(
        zip(cuts, ends, strict=True), key=lambda part: min(end, part[1]) - max(start, part[0])
    )[0]
