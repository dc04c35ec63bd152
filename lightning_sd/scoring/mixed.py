"""Several scores of the same tokens, made into one distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.scoring.scorer import Scores

Mix = Callable[[Sequence[Tensor]], Tensor]
"""Logits of each part, ``[chunk, vocab]`` each and free to be overwritten, to the mixed logits."""


@dataclass(frozen=True)
class MixedScores:
    """Scores whose logits are formed chunk by chunk from those of other scores."""

    parts: tuple[LogitsSource, ...]
    mix: Mix

    def __len__(self) -> int:
        """Tokens."""
        return len(self.parts[0])


LogitsSource = Scores | MixedScores


def weighted(coefficients: Sequence[float]) -> Mix:
    """Mix logits linearly: a geometric mean of distributions if the coefficients sum to 1.

    Args:
        coefficients: One a part.
    """

    def mix(logits: Sequence[Tensor]) -> Tensor:
        total = logits[0].mul_(coefficients[0])
        for part, coefficient in zip(logits[1:], coefficients[1:], strict=True):
            total.add_(part, alpha=coefficient)
        return total

    return mix


def spread(scores: Scores, present: Sequence[bool], lengths: Sequence[int]) -> Scores:
    """Make room for rows that were not scored: zeros stand in for them.

    Args:
        scores: Of the rows that are present.
        present: Which rows those are.
        lengths: Tokens of every row.

    Returns:
        Scores of ``sum(lengths)`` tokens.
    """
    if all(present):
        return scores
    device = scores.hidden.device
    kept = torch.tensor(present, device=device).repeat_interleave(
        torch.tensor(lengths, device=device)
    )
    hidden = scores.hidden.new_zeros(len(kept), scores.hidden.shape[-1])
    hidden[kept] = scores.hidden
    return Scores(hidden, scores.head)
