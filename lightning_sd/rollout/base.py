"""What a sampler is: prompts in, G completions a prompt out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Completion:
    """One sampled continuation of one prompt."""

    prompt: int
    """Index of the prompt that it continues."""
    ids: tuple[int, ...]
    """Token ids; the stop token is included if it was sampled, and nothing comes after it."""
    logprobs: tuple[float, ...]
    """Of each id at the sampling temperature, before top-k and top-p."""
    finished: bool
    """Whether a stop token was sampled."""


class Sampler(ABC):
    """Draws completions from the student."""

    @abstractmethod
    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> list[Completion]:
        """Sample from each prompt.

        Args:
            model: The student; its modes (train, eval) are the same afterwards.
            prompts: Token ids.
            samples: Completions a prompt (G).
            stop_ids: Each of these ends a completion.
            generator: The only source of randomness.

        Returns:
            ``samples`` completions of prompt 0, then of prompt 1, and so on.
        """
