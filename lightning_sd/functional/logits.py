"""Numerically safe steps from logits to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_FLOOR = -1e4
"""Logit, relative to the largest one, that replaces the -inf of a masked token."""
TAIL_LOG_CEILING = -1e-7
"""Upper bound of the log of the top-k mass; it keeps the tail's log-probability finite."""


def widen(logits: Tensor, *, copy: bool = False) -> Tensor:
    """Convert logits to float32 unless they are wider; all sums here are taken in that dtype.

    Args:
        logits: Any shape.
        copy: Whether to copy logits that already have the dtype.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32), copy=copy)


def softmax_and_lse(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the softmax and the log of its normalizer with one pass of exponentials.

    Args:
        logits: ``[..., vocab]``.

    Returns:
        Probabilities ``[..., vocab]`` and log-sum-exp ``[..., 1]``.
    """
    probs = torch.softmax(logits, -1)
    # The largest probability is exp(largest logit - lse); two amax beat a max with indices.
    return probs, logits.amax(-1, keepdim=True) - probs.amax(-1, keepdim=True).log_()


def add_tail(top_logprobs: Tensor) -> Tensor:
    """Append the log-probability of all tokens outside the top k (SDPO, eq. 11).

    Args:
        top_logprobs: ``[..., k]``, log-probabilities under the full vocabulary.

    Returns:
        ``[..., k + 1]``; the tail is finite even when the k tokens hold all the mass.

    Example:
        >>> add_tail(torch.tensor([[0.7, 0.2]]).log()).exp().round(decimals=4)
        tensor([[0.7000, 0.2000, 0.1000]])
    """
    mass = torch.logsumexp(top_logprobs, -1, keepdim=True).clamp(max=TAIL_LOG_CEILING)
    return torch.cat([top_logprobs, torch.log(-torch.expm1(mass))], -1)
