"""From scores to the loss of a micro-batch, and what each of its tokens had to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.functional.chunked import chunked_loss
from lightning_sd.functional.divergence import widened
from lightning_sd.functional.linear import LogitsBuffer, default_chunk, linear_loss
from lightning_sd.objectives import Objective, TokenLoss, Tokens
from lightning_sd.scoring import Head, Scores

BLOCK_ELEMENTS = 2**18
"""Logits that a CPU works on at once: they and their temporaries stay in its second-level cache."""


@dataclass(frozen=True)
class LossOutput:
    """A summed loss, what it was summed over, and its tokens."""

    total: Tensor
    """Sum over tokens (or of sequence means), a scalar with a graph."""
    count: float
    """Tokens (or sequences) in the sum; the global mean divides by all ranks' counts."""
    token_loss: Tensor
    """``[tokens]``, no gradient; likewise the following."""
    student_logprobs: Tensor
    teacher_logprobs: Tensor | None
    entropy: Tensor

    @property
    def advantages(self) -> Tensor | None:
        """``[tokens]``: log p_T(y) - log p_S(y) of the sampled tokens; None without a teacher."""
        if self.teacher_logprobs is None:
            return None
        return self.teacher_logprobs - self.student_logprobs


def objective_loss(
    objective: Objective,
    student: Scores,
    teacher: Scores | None,
    tokens: Tokens,
    lengths: Sequence[int],
) -> LossOutput:
    """Apply an objective to scored completions, one vocabulary chunk at a time.

    Args:
        objective: What a token costs.
        student: Packed scores of ``sum(lengths)`` tokens.
        teacher: The same tokens under the teacher; None if the objective reads none.
        tokens: Ids and whatever else, packed in the same order.
        lengths: Tokens of each completion; empty completions count for nothing.

    Returns:
        The loss as a sum with its count, and per-token values.

    Raises:
        ValueError: Student, teacher and tokens are of different lengths.
    """
    number = sum(lengths)
    sizes = {student.hidden.shape[0], len(tokens.ids), number}
    if teacher is not None:
        sizes.add(teacher.hidden.shape[0])
    if len(sizes) > 1:
        raise ValueError(f"student, teacher, tokens and lengths cover different tokens: {sizes}.")
    weights, count = _weights(objective, lengths, student.hidden)
    head = student.head
    if head is not None and head.softcap is None:
        total, kept = _by_linear(objective, student, head, teacher, tokens, weights)
    else:
        total, kept = _by_autograd(objective, student, teacher, tokens, weights)
    columns = kept.unbind(-1)
    return LossOutput(
        total, count, columns[0], columns[1], columns[3] if len(columns) > 3 else None, columns[2]
    )


def _by_linear(
    objective: Objective,
    student: Scores,
    head: Head,
    teacher: Scores | None,
    tokens: Tokens,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """The head is a linear map: no graph over the vocabulary."""
    at = 1 / objective.temperature
    teacher_logits = None if teacher is None else ScaledLogits(teacher, at)

    def step(logits: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        other = None if teacher_logits is None else teacher_logits(part)
        chosen, results, factors = tokens.part(part), [], []
        for rows in row_blocks(logits):
            result, factor = objective.loss_and_grad_(
                logits[rows], None if other is None else other[rows], chosen.part(rows)
            )
            results.append(result)
            factors.append(factor)
        kept = torch.cat([_columns(result) for result in results])
        losses = torch.cat([result.loss for result in results])
        return losses * weights[part], torch.cat(factors) * weights[part], kept

    return linear_loss(
        student.hidden,
        head.weight,
        head.bias,
        step,
        scale=head.scale * at,
        chunk=objective.chunk_tokens,
    )


def _by_autograd(
    objective: Objective, student: Scores, teacher: Scores | None, tokens: Tokens, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Any head, or logits from the model itself."""

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher_logits = None if teacher is None else teacher.logits(part)
            if teacher_logits is not None and objective.temperature != 1.0:
                teacher_logits = teacher_logits / objective.temperature
        if objective.temperature != 1.0:
            logits = logits / objective.temperature
        result = objective.token_loss(logits, teacher_logits, tokens.part(part))
        return (result.loss * weights[part]).sum(), _columns(result)

    head = student.head
    vocab = student.hidden.shape[-1] if head is None else head.weight.shape[0]
    return chunked_loss(
        student.hidden,
        head if head is not None else lambda logits: logits,
        head.trainable() if head is not None else [],
        loss,
        chunk=objective.chunk_tokens or default_chunk(vocab),
    )


class ScaledLogits:
    """A teacher's logits, chunk by chunk, in float32 or wider and free to be overwritten.

    Args:
        scores: The teacher's.
        scale: Of the logits.
    """

    def __init__(self, scores: Scores, scale: float) -> None:
        self.scores, self.scale = scores, scale
        head = scores.head
        self._buffer = None
        if head is not None and head.softcap is None:
            self._buffer = LogitsBuffer(head.weight, head.bias, head.scale * scale)

    def __call__(self, part: slice) -> Tensor:
        """``[chunk, vocab]``; valid until the next call."""
        if self._buffer is not None:
            return self._buffer.logits(self.scores.hidden[part])
        return widened(self.scores.logits(part), copy=True).mul_(self.scale)


def row_blocks(logits: Tensor) -> list[slice]:
    """Rows to be worked on at once: on a CPU no more than its caches hold, elsewhere all."""
    rows = len(logits)
    size = max(1, BLOCK_ELEMENTS // logits.shape[-1]) if logits.device.type == "cpu" else rows
    return [slice(start, min(start + size, rows)) for start in range(0, max(rows, 1), max(size, 1))]


def _columns(result: TokenLoss) -> Tensor:
    columns = [result.loss.detach(), result.student_logprobs, result.entropy]
    if result.teacher_logprobs is not None:
        columns.append(result.teacher_logprobs)
    return torch.stack(columns, -1)


def _weights(objective: Objective, lengths: Sequence[int], like: Tensor) -> tuple[Tensor, float]:
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    if objective.reduction == "token":
        return torch.ones(sum(lengths), dtype=wide, device=like.device), float(sum(lengths))
    per_row = torch.tensor(lengths, dtype=wide, device=like.device)
    repeats = torch.tensor(lengths, device=like.device)
    weights = per_row.reciprocal().repeat_interleave(repeats)
    return weights, float(sum(length > 0 for length in lengths))
