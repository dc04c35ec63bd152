"""Critics that write step-aligned critiques, and the cache that stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sd._lazy import make_lazy_exports

if TYPE_CHECKING:
    from lightning_sd.critique.base import Critic as Critic
    from lightning_sd.critique.base import CritiqueRequest as CritiqueRequest
    from lightning_sd.critique.cache.cache import CritiqueCache as CritiqueCache
    from lightning_sd.critique.critics.lm import LMCritic as LMCritic
    from lightning_sd.critique.critics.rule import RuleCritic as RuleCritic
    from lightning_sd.critique.critics.server import ServerCritic as ServerCritic
    from lightning_sd.critique.critics.vllm import VLLMCritic as VLLMCritic

__getattr__, __dir__, __all__ = make_lazy_exports(
    __name__,
    {
        "lightning_sd.critique.base": ("Critic", "CritiqueRequest"),
        "lightning_sd.critique.cache.cache": ("CritiqueCache",),
        "lightning_sd.critique.critics.lm": ("LMCritic",),
        "lightning_sd.critique.critics.rule": ("RuleCritic",),
        "lightning_sd.critique.critics.server": ("ServerCritic",),
        "lightning_sd.critique.critics.vllm": ("VLLMCritic",),
    },
)
