"""From weights to drawn tokens: one random number a row, and no running sum of the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256
"""Tokens whose weights are summed before anything is cumulated: sums are many times faster."""
BELOW = 1 - 2**-22
"""Strictly below a total, so that a token without probability is never drawn at its end."""


def draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Sample tokens in proportion to their weights, by inverting the cumulative distribution.

    In two steps: the block in which the level falls, then the token in the block, so that only the
    blocks' sums and one block a row are cumulated. ``torch.multinomial`` needs one exponential
    random number a token, which dominates decoding of small models on a CPU.

    Args:
        weights: ``[rows, vocab]``, not negative, the largest of a row about 1.
        generator: On the same device.

    Returns:
        ``[rows]``.
    """
    rows, vocab = weights.shape
    size = min(BLOCK, vocab)
    whole = vocab - vocab % size
    sums = weights[:, :whole].unflatten(1, (-1, size)).sum(-1)
    if whole < vocab:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], 1)
    blocks = sums.cumsum(-1)
    # Its dtype is named because `bf16-true` makes the default one too coarse for a vocabulary.
    uniform = torch.rand(rows, 1, generator=generator, dtype=weights.dtype, device=weights.device)
    level, block = _invert(blocks, uniform * blocks[:, -1:])
    before = (blocks - sums).gather(1, block)
    ids = block * size + torch.arange(size, device=weights.device)
    inside = weights.gather(1, ids.clamp(max=vocab - 1)).masked_fill(ids >= vocab, 0)
    _, place = _invert(inside.cumsum(-1), level - before)
    return (block * size + place).squeeze(1)


def _invert(cumulative: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """The level, kept inside, and the first entry above it; ``[rows, 1]`` each."""
    level = torch.minimum(level.clamp(min=0), cumulative[:, -1:] * BELOW)
    return level, torch.searchsorted(cumulative, level, right=True)


def left_out(logits: Tensor, *, top_k: int, top_p: float) -> Tensor | None:
    """Which tokens top-k and then top-p forbid.

    Args:
        logits: ``[rows, vocab]``, at the sampling temperature.
        top_k: Keep the k most likely; 0: all.
        top_p: Of these keep the fewest that hold this much probability; 1: all.

    Returns:
        ``[rows, vocab]``; None if neither setting leaves anything out.
    """
    dropped = None
    if top_k and top_k < logits.shape[-1]:
        dropped = logits < logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(dropped, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        probs = ordered.softmax(-1)
        beyond = probs.cumsum(-1) - probs >= top_p
        nucleus = torch.zeros_like(beyond).scatter_(-1, order, beyond)
        dropped = nucleus if dropped is None else dropped | nucleus
    return dropped
