"""The interface of samplers: prompts in, G completions per prompt out."""

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
    """Index of the prompt that the completion continues."""
    ids: tuple[int, ...]
    """Token ids; a sampled stop token is included and is the last one."""
    logprobs: tuple[float, ...]
    """Log-probability of each id at the sampling temperature, before top-k and top-p."""
    finished: bool
    """Whether a stop token was sampled."""


class Sampler(ABC):
    """Samples completions from the student."""

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
            model: The student; its modules' train and eval modes are restored afterwards.
            prompts: Token ids of each prompt.
            samples: Completions per prompt (G).
            stop_ids: Token ids that end a completion.
            generator: The only source of randomness, on the model's device.

        Returns:
            ``samples`` completions of prompt 0, then of prompt 1, and so on.
        """
