"""The settings that every sampler of completions has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_sd.rollout.base import Sampler


@dataclass(frozen=True)
class SamplingSettings(Sampler):
    """Length, temperature, truncation and stop tokens.

    Raises:
        ValueError: A setting is out of range.
    """

    max_new_tokens: int = 256
    """Longest completion in tokens; one without a stop token by then counts as cut off."""
    temperature: float = 1.0
    """Divisor of the logits; 0 is greedy decoding."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this probability; 1: from all tokens."""
    top_k: int = 0
    """Sample from the k most likely tokens; 0: from all tokens."""
    stop_token_ids: Sequence[int] = ()
    """Further token ids that end a completion."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens={self.max_new_tokens}: must be at least 1.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"temperature={self.temperature}: must be finite, and 0 (greedy) or more."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: must be above 0 and at most 1.")
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: must be 0 (off) or above.")
        # YAML and checkpoints give lists.
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
