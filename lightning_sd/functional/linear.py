"""Compute a loss and its gradients from hidden states, one chunk of tokens at a time.

The counterpart of :mod:`.chunked` for heads that are a linear map; it builds no graph. Each chunk's
logits are overwritten by their gradient, and two matrix products turn that gradient into those of
the hidden states and of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_sd.functional.logits import widen
from lightning_sd.functional.onednn import multiply_into

ChunkLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor, Tensor]]
"""Maps logits ``[chunk, vocab]`` (float32 or wider) and the slice of their tokens to three tensors:
each token's loss ``[chunk]``, a factor for its gradient ``[chunk]``, and the values to keep for it
``[chunk, kept]``. Overwrites the logits with their gradient before that factor."""

CHUNK_BYTES = 64 * 2**20
"""Default size of a chunk's logits in float32, in bytes."""
CHUNK_ROWS = 128
"""Fewest tokens per chunk. Each chunk reads and writes the head's whole gradient, which takes long
for few tokens of a large vocabulary."""


def linear_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    chunk_loss: ChunkLoss,
    *,
    scale: float = 1.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum the losses of tokens whose logits are ``scale * (hidden W^T + b)``.

    Args:
        hidden: ``[tokens, hidden]``.
        weight: ``[vocab, hidden]``.
        bias: ``[vocab]``, or None.
        chunk_loss: Called once per chunk, in order.
        scale: Factor of the logits.
        chunk: Tokens per chunk; None chooses :func:`default_chunk`.

    Returns:
        The total, a scalar, and the kept values ``[tokens, kept]``. The total is differentiable
        with respect to ``hidden``, ``weight`` and ``bias``. It allows one backward pass only,
        because that pass overwrites the stored gradients.
    """
    size = chunk or default_chunk(weight.shape[0])
    total, kept = _Linear.apply(
        hidden, weight, bias, chunk_loss, scale, size, torch.is_grad_enabled()
    )
    return total, kept


def default_chunk(vocab: int) -> int:
    """Return the tokens per chunk: ``CHUNK_BYTES`` of float32 logits, at least ``CHUNK_ROWS``."""
    return max(CHUNK_ROWS, CHUNK_BYTES // (4 * vocab))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        chunk_loss: ChunkLoss,
        scale: float,
        chunk: int,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor]:
        wants = [grad_enabled and t is not None and t.requires_grad for t in (hidden, weight, bias)]
        grads = _Grads(hidden, weight, bias, wants)
        buffer = LogitsBuffer(weight, bias, scale)
        totals, kept = [], []
        # Without tokens one empty chunk is computed, so that every weight gets a zero gradient.
        for start in range(0, max(hidden.shape[0], 1), chunk):
            part = slice(start, min(start + chunk, hidden.shape[0]))
            logits = buffer.logits(hidden[part])
            losses, factors, keep = chunk_loss(logits, part)
            totals.append(losses.sum())
            kept.append(keep)
            grads.add(logits, factors * scale, part)
        ctx.save_for_backward(*grads.cast())
        out_kept = torch.cat(kept)
        ctx.mark_non_differentiable(out_kept)
        return torch.stack(totals).sum(), out_kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*scale_grads_(ctx.saved_tensors, grads[0]), None, None, None, None)


def scale_grads_(grads: Sequence[Tensor | None], factor: Tensor) -> tuple[Tensor | None, ...]:
    """Multiply stored gradients by the incoming gradient of a scalar loss, in place.

    In place, because a copy of a head's gradient is large. Autograd's version counters refuse a
    second backward pass, which would read the changed gradients.

    Args:
        grads: The stored gradients; overwritten unless the factor is 1.
        factor: A scalar.
    """
    if factor.item() != 1.0:
        for grad in grads:
            if grad is not None:
                grad.mul_(factor)
    return tuple(grads)


class LogitsBuffer:
    """Computes the logits of one chunk after another in the same memory.

    New memory for each chunk would be zeroed by the operating system first, which takes longer on a
    CPU than the arithmetic.

    Args:
        weight: ``[vocab, hidden]``.
        bias: ``[vocab]``, or None.
        scale: Factor of the logits.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: float = 1.0) -> None:
        self.weight, self.bias, self.scale = weight.detach(), bias, scale
        self._memory: Tensor | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute logits ``[chunk, vocab]``, in float32 or wider; valid until the next call.

        Args:
            hidden: ``[chunk, hidden]``.
        """
        scaled = hidden if self.scale == 1.0 else hidden * self.scale
        narrow = torch.is_autocast_enabled(hidden.device.type) or self.weight.dtype in (
            torch.bfloat16,
            torch.float16,
        )
        if narrow or hidden.dtype != self.weight.dtype:
            logits = widen(torch.nn.functional.linear(scaled, self.weight))
        else:
            if self._memory is None or len(self._memory) < len(hidden):
                self._memory = hidden.new_empty(len(hidden), self.weight.shape[0])
            logits = multiply_into(scaled, self.weight, self._memory[: len(hidden)])
        return logits if self.bias is None else logits.add_(self.bias, alpha=self.scale)


class _Grads:
    """Accumulates the requested gradients over chunks, in float32 or wider."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wants: list[bool]
    ) -> None:
        self.source = (hidden, weight, bias)
        self.hidden = torch.empty_like(hidden) if wants[0] else None
        self.weight = self._make_sum(weight) if wants[1] else None
        self.bias = self._make_sum(bias) if wants[2] and bias is not None else None

    @staticmethod
    def _make_sum(like: Tensor) -> Tensor:
        # In bfloat16 a large sum absorbs further chunks without changing.
        return torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))

    def add(self, grad: Tensor, factors: Tensor, part: slice) -> None:
        """Add one chunk: the gradients of its logits, and one factor per token."""
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

    def cast(self) -> tuple[Tensor | None, ...]:
        """Return the sums in the dtypes of their tensors."""
        sums = (self.hidden, self.weight, self.bias)
        return tuple(
            None if total is None or source is None else total.to(source.dtype)
            for total, source in zip(sums, self.source, strict=True)
        )
