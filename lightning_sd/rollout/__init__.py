"""Where the student's rollouts come from."""

from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.rollout.stored import stored_attempts
from lightning_sd.rollout.transformers_sampler import TransformersSampler

__all__ = ["Completion", "Sampler", "TransformersSampler", "stored_attempts"]
