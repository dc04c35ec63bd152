"""From scores to the loss of a micro-batch, and what each of its tokens had to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.functional.chunked import chunked_loss
from lightning_sd.functional.linear import default_chunk, linear_loss
from lightning_sd.objectives import Objective, TokenLoss, Tokens
from lightning_sd.scoring import Head, LogitsSource, Scores
from lightning_sd.scoring.scaled import ScaledLogits, row_blocks


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
    silent: bool = False
    """Whether nothing could be learned: no token, all of them masked, or no advantage."""

    @property
    def advantages(self) -> Tensor | None:
        """``[tokens]``: log p_T(y) - log p_S(y) of the sampled tokens; None without a teacher."""
        if self.teacher_logprobs is None:
            return None
        return self.teacher_logprobs - self.student_logprobs


def objective_loss(
    objective: Objective,
    student: Scores,
    teacher: LogitsSource | None,
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
    sizes = {len(student), len(tokens.ids), number}
    if teacher is not None:
        sizes.add(len(teacher))
    if len(sizes) > 1:
        raise ValueError(f"student, teacher, tokens and lengths cover different tokens: {sizes}.")
    weights, count = token_weights(objective, tokens, lengths, like=student.hidden)
    fused = None if teacher is None else objective.fused(student, teacher)
    if fused is not None:
        unknown = weights[:0]
        return LossOutput(fused, count, unknown, unknown, None, unknown, silent=not number)
    head = student.head
    if head is not None and head.softcap is None:
        total, kept = _by_linear(objective, student, head, teacher, tokens, weights)
    else:
        total, kept = _by_autograd(objective, student, teacher, tokens, weights)
    columns = kept.unbind(-1)
    return LossOutput(
        total,
        count,
        columns[0],
        columns[1],
        columns[3] if len(columns) > 3 else None,
        columns[2],
        silent=_silent(tokens, weights, has_teacher=teacher is not None),
    )


def token_weights(
    objective: Objective, tokens: Tokens, lengths: Sequence[int], *, like: Tensor
) -> tuple[Tensor, float]:
    """By what each token's loss enters the sum, and by what the sum is to be divided.

    Args:
        objective: Its ``reduction`` says how it averages.
        tokens: Those that are not ``kept`` have weight 0 and are not counted; ``scale`` multiplies.
        lengths: Tokens of each completion.
        like: Decides device and precision.

    Returns:
        ``[tokens]``, and the number of tokens or completions on this rank and micro-batch.
    """
    wide = torch.float64 if like.dtype == torch.float64 else torch.float32
    kept = torch.ones(sum(lengths), dtype=wide, device=like.device)
    if tokens.kept is not None:
        kept = tokens.kept.to(kept)
    scaled = kept if tokens.scale is None else kept * tokens.scale.to(kept)
    if objective.reduction == "token":
        return scaled, float(kept.sum())
    repeats = torch.tensor(lengths, device=like.device)
    rows = torch.arange(len(lengths), device=like.device).repeat_interleave(repeats)
    per_row = kept.new_zeros(len(lengths)).index_add_(0, rows, kept)
    counted = float((per_row > 0).sum())
    if objective.reduction == "constant":
        return scaled, counted * (objective.constant_tokens or 1)
    return scaled / per_row.clamp(min=1)[rows], counted


def _silent(tokens: Tokens, weights: Tensor, *, has_teacher: bool) -> bool:
    if not weights.any():
        return True
    advantages = tokens.advantages
    return advantages is not None and not has_teacher and not advantages[weights != 0].any()


def _by_linear(
    objective: Objective,
    student: Scores,
    head: Head,
    teacher: LogitsSource | None,
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
    objective: Objective,
    student: Scores,
    teacher: LogitsSource | None,
    tokens: Tokens,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Any head, or logits from the model itself."""
    teacher_scores = None if teacher is None else ScaledLogits(teacher, 1 / objective.temperature)

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher_logits = None if teacher_scores is None else teacher_scores(part)
        if objective.temperature != 1.0:
            logits = logits / objective.temperature
        result = objective.token_loss(logits, teacher_logits, tokens.part(part))
        return (result.loss * weights[part]).sum(), _columns(result)

    head = student.head
    vocab = student.hidden.shape[-1] if head is None else head.weight.shape[0]
    return chunked_loss(
        student.hidden,
        head if head is not None else lambda logits: logits,
        head.list_trainable() if head is not None else [],
        loss,
        chunk=objective.chunk_tokens or default_chunk(vocab),
    )


def _columns(result: TokenLoss) -> Tensor:
    columns = [result.loss.detach(), result.student_logprobs, result.entropy]
    if result.teacher_logprobs is not None:
        columns.append(result.teacher_logprobs)
    return torch.stack(columns, -1)
