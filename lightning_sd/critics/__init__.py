"""Frozen critics: who writes the step-aligned critiques."""

from lightning_sd.critics.base import Critic, CritiqueRequest
from lightning_sd.critics.lm import LMCritic
from lightning_sd.critics.rule import RuleCritic
from lightning_sd.critics.server import ServerCritic
from lightning_sd.critics.vllm import VLLMCritic

__all__ = ["Critic", "CritiqueRequest", "LMCritic", "RuleCritic", "ServerCritic", "VLLMCritic"]
