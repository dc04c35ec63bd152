"""A loss over ``[tokens, vocab]`` that never holds more than one chunk of it.

Each chunk's logits are formed, turned into losses and gradients, and dropped, within the forward
pass. What stays is the gradient of the hidden states and of the head, so memory does not grow with
the number of tokens beyond that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sd.functional.linear import scaled_

Logits = Callable[[Tensor], Tensor]
"""``[chunk, hidden]`` to ``[chunk, vocab]``, differentiable."""
ChunkLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""Student logits ``[chunk, vocab]`` and which tokens they are, to the chunk's loss (a scalar) and
whatever is to be kept of each token, ``[chunk, kept]`` (no gradient)."""


def chunked_loss(
    hidden: Tensor, logits: Logits, params: Sequence[Tensor], loss: ChunkLoss, *, chunk: int
) -> tuple[Tensor, Tensor]:
    """Sum a loss over tokens, chunk by chunk, with exact gradients.

    Args:
        hidden: ``[tokens, hidden]``.
        logits: The head.
        params: The head's tensors that want a gradient.
        loss: Called once a chunk, in order.
        chunk: Tokens a chunk.

    Returns:
        The summed loss, a scalar, differentiable once with respect to ``hidden`` and ``params``;
        and what ``loss`` kept, ``[tokens, kept]``.
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
        # In float32 or wider: chunks added up in bfloat16 soon stop adding anything.
        grad_params = [
            torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            for p in (params if wants else ())
        ]
        totals, kept = [], []
        # No tokens are one empty chunk, so that a zero still reaches every weight.
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
        hidden, *params = scaled_(ctx.saved_tensors, grads[0])
        return (hidden, None, None, None, None, *params)
