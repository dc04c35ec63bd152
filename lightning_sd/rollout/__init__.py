"""Samplers, and rollouts from stored attempts."""

from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.rollout.stored import encode_stored_attempts
from lightning_sd.rollout.transformers_sampler import TransformersSampler

__all__ = ["Completion", "Sampler", "TransformersSampler", "encode_stored_attempts"]
