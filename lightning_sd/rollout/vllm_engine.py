"""A vLLM engine in this process that follows the weights of a transformers model."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.fingerprint import fingerprint_module

_ENGINES: weakref.WeakKeyDictionary[nn.Module, dict[str, VLLMEngine]] = weakref.WeakKeyDictionary()


class VLLMEngine:
    """Generates with vLLM, with the current weights of a model.

    The engine starts from the model's configuration alone; its weights come from the model in
    memory at the first :meth:`sync`.

    Args:
        model: A transformers causal language model, with LoRA adapters or without.
        settings: Arguments of ``vllm.LLM``, such as ``{"gpu_memory_utilization": 0.3}``.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: The model is quantized, or vLLM does not support its head size on this device.
    """

    def __init__(self, model: nn.Module, settings: Mapping[str, Any]) -> None:
        base = get_causal_lm(model)
        check_servable(base)
        dtype = str(next(base.parameters()).dtype).removeprefix("torch.")
        self._folder = tempfile.TemporaryDirectory(prefix="vllm-config-")
        base.config.save_pretrained(self._folder.name)
        self._name_architecture(type(base).__name__)
        defaults = {"dtype": dtype, "skip_tokenizer_init": True, "load_format": "dummy"}
        self.llm = start_llm(self._folder.name, base.config, {**defaults, **settings})
        self.version: tuple[Any, ...] | None = None
        self.syncs = 0
        self.asleep = False

    def sync(self, model: nn.Module) -> bool:
        """Wake the engine, and hand it the model's weights if they changed since the last call.

        Args:
            model: The model with which the engine was started.

        Returns:
            Whether weights were handed over.
        """
        if self.asleep:
            self.llm.wake_up()
            self.asleep = False
        version = read_version(model)
        if version == self.version:
            return False
        iterator = {"weights_iterator": iterate_weights(model), "is_checkpoint_format": True}
        self.llm.collective_rpc("reload_weights", kwargs=iterator)
        # Blocks of the prefix cache were computed with the old weights.
        self.llm.reset_prefix_cache()
        self.version = version
        self.syncs += 1
        return True

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        """Generate one completion per prompt; ``params`` are vLLM's ``SamplingParams``."""
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self.llm.generate(requests, list(params), use_tqdm=False)
        return [output.outputs[0] for output in outputs]

    def sleep(self, level: int) -> None:
        """Free device memory until the next :meth:`sync` (vLLM's sleep levels 1 and 2)."""
        self.llm.sleep(level=level)
        self.asleep = True
        if level > 1:
            self.version = None  # level 2 drops the weights

    def _name_architecture(self, name: str) -> None:
        # A configuration that was never saved with its model does not name its class.
        path = Path(self._folder.name) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config["architectures"] = config.get("architectures") or [name]
        path.write_text(json.dumps(config), encoding="utf-8")


def get_engine(model: nn.Module, settings: Mapping[str, Any]) -> VLLMEngine:
    """Return the model's engine, and start it at the first call.

    Samplers of one model with equal settings share an engine, so that training and evaluation hold
    its weights once.

    Args:
        model: The student.
        settings: Arguments of ``vllm.LLM``.
    """
    key = json.dumps(dict(settings), sort_keys=True, default=str)
    engines = _ENGINES.setdefault(model, {})
    if key not in engines:
        engines[key] = VLLMEngine(model, settings)
    return engines[key]


def read_version(model: nn.Module) -> tuple[Any, ...]:
    """Return a value that differs if the model's weights may have changed.

    It holds the address and the version counter of each parameter, a sample of its values (writing
    to ``.data`` moves no counter), and the state of LoRA adapters.
    """
    tensors = tuple((p.data_ptr(), p._version) for p in model.parameters())
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "get_delta_weight")]
    adapters = tuple((tuple(m.active_adapters), bool(m.disable_adapters)) for m in layers)
    return tensors, adapters, fingerprint_module(model)


@torch.no_grad()
def iterate_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors as a checkpoint of the base model has them.

    LoRA adapters that are active are merged into copies, so the model's own weights never change.
    A tied head is yielded by its own name too: vLLM on a CPU holds it as a packed copy, which would
    stay old.

    Args:
        model: The model, with peft or without.
    """
    lora = {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    for name, parameter in model.state_dict(keep_vars=True).items():
        if ".lora_" in name or "lora_magnitude_vector" in name:
            continue
        tensor = parameter.detach()
        owner = name.removesuffix(".base_layer.weight")
        if owner != name and owner in lora and not lora[owner].disable_adapters:
            for adapter in lora[owner].active_adapters:
                tensor = tensor + lora[owner].get_delta_weight(adapter).to(tensor.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), tensor


def check_servable(model: Any) -> None:
    """Refuse models whose weights this engine cannot follow.

    Args:
        model: A transformers causal language model without peft.

    Raises:
        ValueError: The model is quantized.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError(
            "sampler: VLLMSampler cannot read quantized weights. Load `model` without "
            "`quantization`, or use TransformersSampler."
        )


def start_llm(name: str, config: Any, settings: Mapping[str, Any]) -> Any:
    """Start vLLM's offline engine in this process.

    Args:
        name: Hub name or folder of the model.
        config: Its transformers configuration.
        settings: Further arguments of ``vllm.LLM``.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: vLLM on a CPU does not know the model's head size.
    """
    vllm = import_vllm()
    check_head_size(config)
    # Weights in memory can be handed only to an engine that has no process of its own.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    return vllm.LLM(model=name, **settings)


def check_head_size(config: Any) -> None:
    """Refuse head sizes that vLLM lacks on a CPU; it would stop with an error of its kernels.

    Args:
        config: The model's transformers configuration.

    Raises:
        ValueError: The head size is not supported.
    """
    if torch.cuda.is_available():
        return
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    sizes = _list_cpu_head_sizes()
    if sizes and size not in sizes:
        raise ValueError(
            f"vLLM on a CPU does not support the head size {size} of this {config.model_type} "
            f"model (it supports {', '.join(map(str, sizes))}). Use TransformersSampler to sample, "
            "and LMCritic to criticise."
        )


def import_vllm() -> Any:
    """Import vLLM.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        import vllm
    except ImportError as error:
        raise ImportError(
            'vLLM is not installed. Run pip install "lightning_sd[vllm]" (GPU), or see the page on '
            "rollout engines for CPUs."
        ) from error
    return vllm


def _list_cpu_head_sizes() -> list[int]:
    try:
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
    except ImportError:
        return []
    return list(CPUAttentionBackend.get_supported_head_sizes())
