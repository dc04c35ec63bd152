"""Model sources, chat rendering, stop tokens and key-value caches."""

from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.sources import LoadedModel, LoRA, ModelSource, PretrainedModel
from lightning_sd.models.stop_ids import stop_ids
from lightning_sd.models.trainable import trainable

__all__ = [
    "LoRA",
    "LoadedModel",
    "ModelSource",
    "PretrainedModel",
    "encode_prompt",
    "stop_ids",
    "trainable",
]
