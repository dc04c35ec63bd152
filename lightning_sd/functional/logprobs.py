"""Compute log-probabilities of sampled tokens, and entropies."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sd.functional.logits import LOG_FLOOR, softmax_and_lse, widen


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Compute the log-probability of each token, with gradient, in float32 or wider.

    Args:
        logits: ``[tokens, vocab]``.
        ids: ``[tokens]``.

    Returns:
        ``[tokens]``.
    """
    return -torch.nn.functional.cross_entropy(widen(logits), ids, reduction="none")


def sampled_logprobs(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Compute each token's log-probability, with gradient, and the entropy, without gradient.

    Args:
        logits: ``[tokens, vocab]``.
        ids: ``[tokens]``.

    Returns:
        Log-probabilities and entropies in nats, each ``[tokens]``, in float32 or wider.
    """
    wide = widen(logits)
    logprobs = token_logprobs(wide, ids)
    with torch.no_grad(), torch.autocast(wide.device.type, enabled=False):
        finite = wide.clamp(min=wide.amax(-1, keepdim=True) + LOG_FLOOR)
        probs, normalizer = softmax_and_lse(finite)
        entropy = normalizer.squeeze(-1) - torch.linalg.vecdot(probs, finite)
    return logprobs, entropy
