"""From hidden states straight to the loss and its gradients, one chunk of the vocabulary at a time.

The counterpart of :mod:`.chunked` for heads that are a plain linear map: no graph is built at all.
The chunk's logits are overwritten by their own gradient, which two matrix products turn into the
gradients of the hidden states and of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sd.functional.divergence import widened

Step = Callable[[Tensor, slice], tuple[Tensor, Tensor, Tensor]]
"""Logits ``[chunk, vocab]`` (float32 or wider) and which tokens they are. Overwrites the logits
with a gradient, and returns each token's share of the total ``[chunk]``, by what its gradient is
still to be multiplied ``[chunk]``, and whatever is to be kept of each, ``[chunk, kept]``."""

CHUNK_BYTES = 64 * 2**20
"""Size of a chunk's logits, if the chunk is not given in tokens."""


def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    step: Step,
    *,
    scale: float = 1.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the losses of tokens whose logits are ``scale * (hidden W^T + b)``.

    Args:
        hidden: ``[tokens, hidden]``.
        weight: ``[vocab, hidden]``.
        bias: ``[vocab]``, or None.
        step: Called once a chunk, in order.
        scale: Of the logits.
        chunk: Tokens a chunk; None: as many as make ``CHUNK_BYTES`` of float32.

    Returns:
        The total, a scalar, differentiable once with respect to ``hidden``, ``weight`` and
        ``bias`` (for a second backward pass its gradients are gone: they were handed over); and
        what ``step`` kept, ``[tokens, kept]``.
    """
    size = chunk or default_chunk(weight.shape[0])
    total, kept = _Linear.apply(hidden, weight, bias, step, scale, size, torch.is_grad_enabled())
    return total, kept


def default_chunk(vocab: int) -> int:
    """Tokens a chunk, so that its logits take about ``CHUNK_BYTES`` in float32."""
    return max(16, CHUNK_BYTES // (4 * vocab))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        step: Step,
        scale: float,
        chunk: int,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor]:
        wants = [grad_enabled and t is not None and t.requires_grad for t in (hidden, weight, bias)]
        grads = _Grads(hidden, weight, bias, wants)
        buffer = LogitsBuffer(weight, bias, scale)
        totals, kept = [], []
        # No tokens are one empty chunk, so that a zero still reaches every weight.
        for start in range(0, max(hidden.shape[0], 1), chunk):
            part = slice(start, min(start + chunk, hidden.shape[0]))
            logits = buffer.logits(hidden[part])
            losses, factors, keep = step(logits, part)
            totals.append(losses.sum())
            kept.append(keep)
            grads.add(logits, factors * scale, part)
        ctx.save_for_backward(*grads.finished())
        out_kept = torch.cat(kept)
        ctx.mark_non_differentiable(out_kept)
        return torch.stack(totals).sum(), out_kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*scaled_(ctx.saved_tensors, grads[0]), None, None, None, None)


def scaled_(grads: Sequence[Tensor | None], factor: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients formed ahead, times what the backward pass brings; no second copy of a head.

    A second backward pass would read what the first one changed: torch's own count of changes
    refuses it.

    Args:
        grads: Overwritten, unless the factor is 1.
        factor: A scalar.
    """
    if factor.item() != 1.0:
        for grad in grads:
            if grad is not None:
                grad.mul_(factor)
    return tuple(grads)


class LogitsBuffer:
    """Forms chunk after chunk of logits in one and the same memory.

    Fresh memory for each chunk would cost the operating system's zeroing of its pages, which on a
    CPU takes longer than the arithmetic on it.

    Args:
        weight: ``[vocab, hidden]``.
        bias: ``[vocab]``, or None.
        scale: Of the logits.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> None:
        self.weight, self.bias, self.scale = weight.detach(), bias, scale
        self._memory: Tensor | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """``[chunk, hidden]`` to ``[chunk, vocab]``, float32 or wider, until the next call."""
        scaled = hidden if self.scale == 1.0 else hidden * self.scale
        narrow = torch.is_autocast_enabled(hidden.device.type) or self.weight.dtype in (
            torch.bfloat16,
            torch.float16,
        )
        if narrow or hidden.dtype != self.weight.dtype:
            logits = widened(torch.nn.functional.linear(scaled, self.weight))
        else:
            if self._memory is None or len(self._memory) < len(hidden):
                self._memory = hidden.new_empty(len(hidden), self.weight.shape[0])
            logits = torch.mm(scaled, self.weight.T, out=self._memory[: len(hidden)])
        return logits if self.bias is None else logits.add_(self.bias, alpha=self.scale)


class _Grads:
    """Sums up the gradients that are wanted, in float32 or wider."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wants: list[bool]
    ) -> None:
        self.source = (hidden, weight, bias)
        self.hidden = torch.empty_like(hidden) if wants[0] else None
        self.weight = self._sum(weight) if wants[1] else None
        self.bias = self._sum(bias) if wants[2] and bias is not None else None

    @staticmethod
    def _sum(like: Tensor) -> Tensor:
        # Chunks added up in bfloat16 soon stop adding anything.
        return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))

    def add(self, grad: Tensor, factors: Tensor, part: slice) -> None:
        """Take in one chunk: a gradient a token, and by what it is to be multiplied."""
        hidden, weight, _ = self.source
        column = factors.unsqueeze(-1).to(grad.dtype)
        if self.hidden is not None:
            self.hidden[part] = (grad.to(weight.dtype) @ weight.detach() * column).to(hidden.dtype)
        if self.weight is not None:
            weighted = hidden[part].detach() * column.to(hidden.dtype)
            if self.weight.dtype == weighted.dtype == grad.dtype:
                self.weight.addmm_(grad.T, weighted)
            else:
                self.weight += grad.to(weighted.dtype).T @ weighted
        if self.bias is not None:
            self.bias += (grad * column).sum(0)

    def finished(self) -> tuple[Tensor | None, ...]:
        """The sums, in the dtypes of what they are gradients of."""
        sums = (self.hidden, self.weight, self.bias)
        return tuple(
            None if total is None or source is None else total.to(source.dtype)
            for total, source in zip(sums, self.source, strict=True)
        )
