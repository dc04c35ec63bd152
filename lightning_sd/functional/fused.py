"""A divergence between two models from their last hidden states, as one call with autograd."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_sd.functional.divergence import divergence_and_grad_
from lightning_sd.functional.divergence_spec import DivergenceSpec, Kind
from lightning_sd.functional.linear import LogitsBuffer, linear_loss


def fused_linear_divergence(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    kind: Kind | DivergenceSpec = "forward_kl",
    *,
    labels: Tensor | None = None,
    ignore_index: int = -100,
    bias: Tensor | None = None,
    teacher_bias: Tensor | None = None,
    temperature: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
    chunk: int | None = None,
) -> Tensor:
    """Compute the divergence between two models whose logits are a linear map of hidden states.

    Logits are formed for one chunk of tokens at a time, for both models, and never held for all
    tokens. The gradients of the hidden states, the weight and the bias are computed on the way, so
    the result allows one backward pass. The teacher gets no gradient.

    Args:
        hidden: ``[..., hidden]``, the student's last hidden states, normalized as its head expects.
        weight: ``[vocab, hidden]``, the student's output head.
        teacher_hidden: ``[..., teacher_hidden]``, with the same leading dimensions.
        teacher_weight: ``[vocab, teacher_hidden]``, the teacher's output head.
        kind: Name of the divergence, or a :class:`DivergenceSpec` with all its settings.
        labels: ``[...]``, token ids at the positions of ``hidden`` (shifted already). Only their
            mask is used: positions with ``ignore_index`` neither cost nor count. Default: all
            positions count.
        ignore_index: The label of ignored positions.
        bias: ``[vocab]``, the bias of the student's head.
        teacher_bias: ``[vocab]``, the bias of the teacher's head.
        temperature: Both models' logits are divided by it. The result is not multiplied by its
            square.
        reduction: ``mean`` over the positions that count, or their ``sum``.
        chunk: Tokens per chunk. Default: 64 MiB of float32 logits, at least 128 tokens.

    Returns:
        A scalar in nats, float32 or wider; 0 with a graph if no position counts.

    Raises:
        ValueError: The leading dimensions or the vocabularies differ, or a setting is out of range.

    Example:
        >>> hidden = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log().requires_grad_()
        >>> teacher = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
        >>> head, labels = torch.eye(2), torch.tensor([1, -100])
        >>> loss = fused_linear_divergence(hidden, head, teacher, head, labels=labels)
        >>> loss.backward()
        >>> round(loss.item(), 4), hidden.grad[0].tolist(), hidden.grad[1].tolist()
        (0.2231, [0.30000001192092896, -0.30000001192092896], [0.0, 0.0])
    """
    spec = kind if isinstance(kind, DivergenceSpec) else DivergenceSpec(kind)
    _check_shapes(hidden, weight, teacher_hidden, teacher_weight, labels)
    if not temperature > 0 or reduction not in ("mean", "sum"):
        raise ValueError(
            f"temperature={temperature}, reduction={reduction!r}: the temperature must be above 0, "
            "and the reduction mean or sum."
        )
    student, teacher = hidden.flatten(0, -2), teacher_hidden.detach().flatten(0, -2)
    if labels is not None:
        counted = labels.flatten() != ignore_index
        student, teacher = student[counted], teacher[counted]
    source = LogitsBuffer(teacher_weight, teacher_bias, 1 / temperature)

    def compute_chunk(logits: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        other = source.logits(teacher[part])
        ids = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        value = divergence_and_grad_(logits, other.to(logits.dtype), ids, spec).value
        return value, torch.ones_like(value), value.unsqueeze(-1)

    total, _ = linear_loss(student, weight, bias, compute_chunk, scale=1 / temperature, chunk=chunk)
    return total / max(len(student), 1) if reduction == "mean" else total


def _check_shapes(
    hidden: Tensor,
    weight: Tensor,
    teacher_hidden: Tensor,
    teacher_weight: Tensor,
    labels: Tensor | None,
) -> None:
    leading = hidden.shape[:-1]
    if teacher_hidden.shape[:-1] != leading or (labels is not None and labels.shape != leading):
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, teacher_hidden {tuple(teacher_hidden.shape)}, labels "
            f"{None if labels is None else tuple(labels.shape)}: the leading dimensions must be "
            "equal; select the same positions of both models."
        )
    if len(weight) != len(teacher_weight):
        raise ValueError(
            f"weight has {len(weight)} rows and teacher_weight {len(teacher_weight)}: both models "
            "must have the same vocabulary."
        )
