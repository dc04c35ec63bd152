"""Compute a loss over ``[tokens, vocab]`` while holding only one chunk of the logits.

The forward pass computes each chunk's logits, turns them into losses and gradients, and frees them.
It keeps the gradients of the hidden states and of the head only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sd.functional.linear import scale_grads_

Logits = Callable[[Tensor], Tensor]
"""Maps hidden states ``[chunk, hidden]`` to logits ``[chunk, vocab]``, with gradient."""
ChunkLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""Maps the student's logits ``[chunk, vocab]`` and the slice of their tokens to the chunk's loss, a
scalar, and the values to keep for each token, ``[chunk, kept]`` (no gradient)."""


def chunked_loss(
    hidden: Tensor, logits: Logits, params: Sequence[Tensor], loss: ChunkLoss, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Sum a loss over tokens chunk by chunk, with exact gradients.

    Args:
        hidden: ``[tokens, hidden]``.
        logits: The head.
        params: The head's tensors that require a gradient.
        loss: Called once per chunk, in order.
        chunk: Tokens per chunk.

    Returns:
        The summed loss, a scalar, and the kept values ``[tokens, kept]``. The loss is
        differentiable with respect to ``hidden`` and ``params``, for one backward pass.
    """
    total, kept = _Chunked.apply(hidden, logits, loss, chunk, torch.is_grad_enabled(), *params)
    return total, kept


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        logits: Logits,
        loss: ChunkLoss,
        chunk: int,
        grad_enabled: bool,
        *params: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wants = grad_enabled and (hidden.requires_grad or bool(params))
        grad_hidden = torch.zeros_like(hidden) if wants else None
        # In bfloat16 a large sum absorbs further chunks without changing.
        grad_params = [
            torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            for p in (params if wants else ())
        ]
        totals, kept = [], []
        # Without tokens one empty chunk is computed, so that every weight gets a zero gradient.
        for start in range(0, max(hidden.shape[0], 1), chunk):
            part = slice(start, min(start + chunk, hidden.shape[0]))
            with torch.set_grad_enabled(wants):
                leaf = hidden[part].detach().requires_grad_(wants)
                total, keep = loss(logits(leaf), part)
            totals.append(total.detach())
            kept.append(keep)
            if grad_hidden is not None:
                grads = torch.autograd.grad(total, [leaf, *params])
                grad_hidden[part] = grads[0]
                for sum_, grad in zip(grad_params, grads[1:], strict=True):
                    sum_ += grad
        if grad_hidden is not None:
            sums = (sum_.to(p.dtype) for sum_, p in zip(grad_params, params, strict=True))
            ctx.save_for_backward(grad_hidden, *sums)
        out_kept = torch.cat(kept)
        ctx.mark_non_differentiable(out_kept)
        return torch.stack(totals).sum(), out_kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, *params = scale_grads_(ctx.saved_tensors, grads[0])
        return (hidden, None, None, None, None, *params)
