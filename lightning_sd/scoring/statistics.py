"""Per-token statistics of scored completions, without a graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_sd.functional.divergence import DivergenceSpec, divergence
from lightning_sd.functional.linear import default_chunk
from lightning_sd.functional.logprobs import sampled_logprobs
from lightning_sd.scoring.mixed import LogitsSource, MixedScores
from lightning_sd.scoring.scaled import ScaledLogits, row_blocks


def token_facts(scores: LogitsSource, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, and the entropy there, without a graph.

    Args:
        scores: Of N tokens.
        ids: ``[N]``.
        temperature: Of the logits.

    Returns:
        Both ``[N]``, float32 or wider.
    """
    logits = ScaledLogits(scores, 1 / temperature)

    def facts(part: slice) -> Tensor:
        found = logits(part)
        blocks = [
            torch.stack(sampled_logprobs(found[rows], ids[part][rows]), -1)
            for rows in row_blocks(found)
        ]
        return torch.cat(blocks)

    both = _by_chunks(facts, scores)
    return both[:, 0], both[:, 1]


def whole_divergence(
    student: LogitsSource,
    teacher: LogitsSource,
    ids: Tensor,
    temperature: float,
    spec: DivergenceSpec,
) -> Tensor:
    """The divergence at each token, ``[N]``, without a graph."""
    ours, theirs = (ScaledLogits(scores, 1 / temperature) for scores in (student, teacher))

    def value(part: slice) -> Tensor:
        return divergence(ours(part), theirs(part), ids[part], spec).value

    return _by_chunks(value, student)


def _by_chunks(function: Callable[[slice], Tensor], scores: LogitsSource) -> Tensor:
    size = default_chunk(_vocab(scores))
    parts = [slice(s, min(s + size, len(scores))) for s in range(0, max(len(scores), 1), size)]
    return torch.cat([function(part) for part in parts])


def _vocab(scores: LogitsSource) -> int:
    while isinstance(scores, MixedScores):
        scores = scores.parts[0]
    return scores.hidden.shape[-1] if scores.head is None else scores.head.weight.shape[0]
