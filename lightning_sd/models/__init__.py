"""Model sources, chat rendering, stop tokens and key-value caches."""

from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.lora import LoRA
from lightning_sd.models.sources import LoadedModel, ModelSource, PretrainedModel
from lightning_sd.models.stop_ids import find_stop_ids
from lightning_sd.models.trainable import list_trainable

__all__ = [
    "LoRA",
    "LoadedModel",
    "ModelSource",
    "PretrainedModel",
    "encode_prompt",
    "find_stop_ids",
    "list_trainable",
]
