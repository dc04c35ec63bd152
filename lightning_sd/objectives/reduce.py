"""From scores to the loss of a micro-batch, one vocabulary chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_sd.functional.chunked import chunked_loss
from lightning_sd.functional.linear import default_chunk, linear_loss
from lightning_sd.objectives.base import Objective, TokenInputs, TokenLoss
from lightning_sd.scoring import Head, LogitsSource, Scores
from lightning_sd.scoring.scaled import ScaledLogits, split_rows


@dataclass(frozen=True)
class LossOutput:
    """The loss of a micro-batch."""

    total: Tensor
    """Sum over tokens (or over sequence means), a scalar with a graph."""
    count: float
    """Tokens (or sequences) in the sum. The global mean divides by the count of all ranks."""
    tokens: TokenLoss
    """Per-token values, without gradient."""
    silent: bool = False
    """Whether nothing can be learned: no token, every token masked, or no advantage."""

    @property
    def advantages(self) -> Tensor | None:
        """Log p_T(y) - log p_S(y) of the sampled tokens, ``[tokens]``; None without a teacher."""
        if self.tokens.teacher_logprobs is None:
            return None
        return self.tokens.teacher_logprobs - self.tokens.student_logprobs

    def detach(self) -> LossOutput:
        """Return the loss without its graph."""
        return replace(self, total=self.total.detach())


def compute_loss(
    objective: Objective,
    student: Scores,
    teacher: LogitsSource | None,
    tokens: TokenInputs,
    lengths: Sequence[int],
) -> LossOutput:
    """Apply an objective to scored completions.

    Args:
        objective: What a token costs.
        student: Packed scores of ``sum(lengths)`` tokens.
        teacher: Scores of the same tokens under the teacher; None if the objective reads none.
        tokens: What the loss reads of each token, packed in the same order.
        lengths: Tokens of each completion; empty completions count for nothing.

    Raises:
        ValueError: Student, teacher and tokens have different lengths.
    """
    sizes = {len(student), len(tokens.ids), sum(lengths)}
    if teacher is not None:
        sizes.add(len(teacher))
    if len(sizes) > 1:
        raise ValueError(f"student, teacher, tokens and lengths cover different tokens: {sizes}.")
    weights, count = weigh_tokens(objective, tokens, lengths, like=student.hidden)
    head = student.head
    if head is not None and head.softcap is None:
        total, columns = _sum_by_linear_head(objective, student, head, teacher, tokens, weights)
    else:
        total, columns = _sum_by_autograd(objective, student, teacher, tokens, weights)
    silent = _is_silent(tokens, weights, has_teacher=teacher is not None)
    return LossOutput(total, count, TokenLoss.from_columns(columns), silent)


def weigh_tokens(
    objective: Objective, tokens: TokenInputs, lengths: Sequence[int], *, like: Tensor
) -> tuple[Tensor, float]:
    """Return the per-token loss weights and the count that normalizes the sum.

    Args:
        objective: Its ``reduction`` says how it averages.
        tokens: Tokens that are not ``kept`` have weight 0 and are not counted; ``scale`` is a
            factor of the weight.
        lengths: Tokens of each completion.
        like: A tensor whose device and precision the result has.

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


def _is_silent(tokens: TokenInputs, weights: Tensor, *, has_teacher: bool) -> bool:
    if not weights.any():
        return True
    advantages = tokens.advantages
    return advantages is not None and not has_teacher and not advantages[weights != 0].any()


def _sum_by_linear_head(
    objective: Objective,
    student: Scores,
    head: Head,
    teacher: LogitsSource | None,
    tokens: TokenInputs,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sum the loss where the head is a linear map: no graph over the vocabulary is needed."""
    inverse = 1 / objective.temperature
    teacher_logits = None if teacher is None else ScaledLogits(teacher, inverse)

    def step(logits: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        other = None if teacher_logits is None else teacher_logits(part)
        chunk = tokens.select(part)
        results, factors = [], []
        for rows in split_rows(logits):
            result, factor = objective.loss_and_grad_(
                logits[rows], None if other is None else other[rows], chunk.select(rows)
            )
            results.append(result.to_columns())
            factors.append(factor)
        columns = torch.cat(results)
        losses = TokenLoss.from_columns(columns).loss
        return losses * weights[part], torch.cat(factors) * weights[part], columns

    return linear_loss(
        student.hidden,
        head.weight,
        head.bias,
        step,
        scale=head.scale * inverse,
        chunk=objective.chunk_tokens,
    )


def _sum_by_autograd(
    objective: Objective,
    student: Scores,
    teacher: LogitsSource | None,
    tokens: TokenInputs,
    weights: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sum the loss for any head, or for logits from the model itself."""
    teacher_scores = None if teacher is None else ScaledLogits(teacher, 1 / objective.temperature)

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            teacher_logits = None if teacher_scores is None else teacher_scores(part)
        if objective.temperature != 1.0:
            logits = logits / objective.temperature
        result = objective.token_loss(logits, teacher_logits, tokens.select(part))
        return (result.loss * weights[part]).sum(), result.to_columns()

    head = student.head
    return chunked_loss(
        student.hidden,
        head if head is not None else lambda logits: logits,
        head.list_trainable() if head is not None else [],
        loss,
        chunk=objective.chunk_tokens or default_chunk(student.vocab_size),
    )
