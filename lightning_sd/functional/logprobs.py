"""Log-probabilities of sampled tokens, and the entropy beside them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sd.functional.divergence import LOG_FLOOR, softmax_and_lse, widened


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability of given tokens, with gradient, in float32 or wider.

    Args:
        logits: ``[tokens, vocab]``.
        ids: ``[tokens]``.

    Returns:
        ``[tokens]``.
    """
    return -torch.nn.functional.cross_entropy(widened(logits), ids, reduction="none")


def sampled_logprobs(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of given tokens, with gradient, and the entropy, without.

    Args:
        logits: ``[tokens, vocab]``.
        ids: ``[tokens]``.

    Returns:
        Both ``[tokens]``, in float32 or wider.
    """
    wide = widened(logits)
    logprobs = token_logprobs(wide, ids)
    with torch.no_grad(), torch.autocast(wide.device.type, enabled=False):
        finite = wide.clamp(min=wide.amax(-1, keepdim=True) + LOG_FLOOR)
        probs, normaliser = softmax_and_lse(finite)
        entropy = normaliser.squeeze(-1) - torch.linalg.vecdot(probs, finite)
    return logprobs, entropy
