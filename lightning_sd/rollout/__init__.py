"""Samplers, and rollouts from stored attempts."""

from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.rollout.engine_sampler import EngineSampler
from lightning_sd.rollout.stored import encode_stored_attempts
from lightning_sd.rollout.transformers_sampler import TransformersSampler
from lightning_sd.rollout.vllm_sampler import VLLMSampler
from lightning_sd.rollout.vllm_server import VLLMServerSampler

__all__ = [
    "Completion",
    "EngineSampler",
    "Sampler",
    "TransformersSampler",
    "VLLMSampler",
    "VLLMServerSampler",
    "encode_stored_attempts",
]
