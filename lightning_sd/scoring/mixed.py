"""Combine several scores of the same tokens into one distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sd.scoring.scorer import Scores

Mix = Callable[[Sequence[Tensor]], Tensor]
"""Maps the logits of each part, ``[chunk, vocab]``, to mixed logits; may overwrite its inputs."""


@dataclass(frozen=True)
class MixedScores:
    """Scores with logits that are computed chunk by chunk from the logits of other scores."""

    parts: tuple[LogitsSource, ...]
    mix: Mix

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.parts[0])

    @property
    def vocab_size(self) -> int:
        """Number of logits per token."""
        return self.parts[0].vocab_size


LogitsSource = Scores | MixedScores


def make_linear_mix(coefficients: Sequence[float]) -> Mix:
    """Make a function that mixes logits linearly.

    The result is a weighted geometric mean of the distributions if the coefficients sum to 1.

    Args:
        coefficients: One per part.
    """

    def mix(logits: Sequence[Tensor]) -> Tensor:
        total = logits[0].mul_(coefficients[0])
        for part, coefficient in zip(logits[1:], coefficients[1:], strict=True):
            total.add_(part, alpha=coefficient)
        return total

    return mix


def insert_missing_rows(scores: Scores, present: Sequence[bool], lengths: Sequence[int]) -> Scores:
    """Insert zeros into scores for the rows that were not scored.

    Args:
        scores: Scores of the rows that are present.
        present: Whether each row was scored.
        lengths: Length of each row, in tokens.

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
