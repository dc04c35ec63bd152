"""Draw tokens with one random number per row and without cumulating the whole vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 256
"""Tokens per block. Block sums are cumulated; a sum is many times faster than a running sum."""
BELOW = 1 - 2**-22
"""Factor that keeps a level below the total, so that no token of weight 0 is drawn at the end."""


def draw(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Sample tokens in proportion to their weights, by inverting the cumulative distribution.

    First finds the block that contains the level, then the token in that block, so that only the
    block sums and one block per row are cumulated. ``torch.multinomial`` needs one exponential
    random number per token, which dominates the decoding time of small models on a CPU.

    Args:
        weights: ``[rows, vocab]``, not negative; their sums need not be 1.
        generator: A generator on the device of the weights.

    Returns:
        Token ids, ``[rows]``.
    """
    rows, vocab = weights.shape
    size = min(BLOCK, vocab)
    whole = vocab - vocab % size
    sums = weights[:, :whole].unflatten(1, (-1, size)).sum(-1)
    if whole < vocab:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], 1)
    blocks = sums.cumsum(-1)
    # The dtype is explicit because `bf16-true` makes bfloat16 the default, which is too coarse.
    uniform = torch.rand(rows, 1, generator=generator, dtype=weights.dtype, device=weights.device)
    level, block = _invert(blocks, uniform * blocks[:, -1:])
    before = (blocks - sums).gather(1, block)
    ids = block * size + torch.arange(size, device=weights.device)
    inside = weights.gather(1, ids.clamp(max=vocab - 1)).masked_fill(ids >= vocab, 0)
    _, place = _invert(inside.cumsum(-1), level - before)
    return (block * size + place).squeeze(1).clamp_(max=vocab - 1)


def _invert(cumulative: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Bound the level, and find the first entry above it; both ``[rows, 1]``."""
    level = torch.minimum(level.clamp(min=0), cumulative[:, -1:] * BELOW)
    # NaN weights give an index beyond the end; the sampler finds the NaN in the log-probability.
    index = torch.searchsorted(cumulative, level, right=True)
    return level, index.clamp_(max=cumulative.shape[-1] - 1)


def find_excluded_tokens(logits: Tensor, *, top_k: int, top_p: float) -> Tensor | None:
    """Find the tokens that top-k and then top-p exclude.

    Args:
        logits: ``[rows, vocab]``, at the sampling temperature.
        top_k: Number of most likely tokens to keep; 0 keeps all.
        top_p: Of these, keep the smallest set with this probability; 1 keeps all.

    Returns:
        A bool mask ``[rows, vocab]``; None if both settings keep all tokens.
    """
    excluded = None
    if top_k and top_k < logits.shape[-1]:
        excluded = logits < logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(excluded, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(-1, descending=True)
        probs = ordered.softmax(-1)
        beyond = probs.cumsum(-1) - probs >= top_p
        nucleus = torch.zeros_like(beyond).scatter_(-1, order, beyond)
        excluded = nucleus if excluded is None else excluded | nucleus
    return excluded
