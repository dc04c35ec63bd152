"""Per-token statistics of scored completions, without a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_sd.functional.divergence import divergence
from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.functional.linear import default_chunk
from lightning_sd.functional.logprobs import sampled_logprobs, token_logprobs
from lightning_sd.scoring.mixed import LogitsSource
from lightning_sd.scoring.scaled import ScaledLogits, split_rows


@torch.no_grad()
def compute_token_statistics(
    scores: LogitsSource, ids: Tensor, temperature: float = 1.0, *, entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Compute the log-probability of each token, and the entropy of its distribution.

    Args:
        scores: Scores of N tokens.
        ids: ``[N]``, the tokens.
        temperature: The logits are divided by it.
        entropy: Whether the entropy is wanted; it costs another pass over the logits.

    Returns:
        Log-probabilities and entropy in nats (or None), ``[N]`` each, float32 or wider.
    """
    logits = ScaledLogits(scores, 1 / temperature)

    def compute(part: slice) -> Tensor:
        chunk = logits(part)
        blocks = []
        for rows in split_rows(chunk):
            block, chosen = chunk[rows], ids[part][rows]
            values = (
                sampled_logprobs(block, chosen) if entropy else (token_logprobs(block, chosen),)
            )
            blocks.append(torch.stack(values, -1))
        return torch.cat(blocks)

    columns = _map_chunks(compute, scores).unbind(-1)
    return columns[0], columns[1] if entropy else None


@torch.no_grad()
def compute_divergence(
    student: LogitsSource,
    teacher: LogitsSource,
    ids: Tensor,
    temperature: float,
    spec: DivergenceSpec,
) -> Tensor:
    """Compute the divergence between student and teacher at each token.

    Args:
        student: Scores of N tokens.
        teacher: Scores of the same tokens.
        ids: ``[N]``, the tokens.
        temperature: All logits are divided by it.
        spec: Which divergence.

    Returns:
        ``[N]``, in nats.
    """
    student_logits, teacher_logits = (ScaledLogits(s, 1 / temperature) for s in (student, teacher))

    def compute(part: slice) -> Tensor:
        return divergence(student_logits(part), teacher_logits(part), ids[part], spec).value

    return _map_chunks(compute, student)


def _map_chunks(function: Callable[[slice], Tensor], scores: LogitsSource) -> Tensor:
    size = default_chunk(scores.vocab_size)
    parts = [slice(s, min(s + size, len(scores))) for s in range(0, max(len(scores), 1), size)]
    return torch.cat([function(part) for part in parts])
