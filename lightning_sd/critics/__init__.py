"""Frozen critics: who writes the step-aligned critiques."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sd.lazy import lazy

if TYPE_CHECKING:
    from lightning_sd.critics.base import Critic as Critic
    from lightning_sd.critics.base import CritiqueRequest as CritiqueRequest
    from lightning_sd.critics.lm import LMCritic as LMCritic
    from lightning_sd.critics.rule import RuleCritic as RuleCritic
    from lightning_sd.critics.server import ServerCritic as ServerCritic
    from lightning_sd.critics.vllm import VLLMCritic as VLLMCritic

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "lightning_sd.critics.base": ("Critic", "CritiqueRequest"),
        "lightning_sd.critics.lm": ("LMCritic",),
        "lightning_sd.critics.rule": ("RuleCritic",),
        "lightning_sd.critics.server": ("ServerCritic",),
        "lightning_sd.critics.vllm": ("VLLMCritic",),
    },
)
