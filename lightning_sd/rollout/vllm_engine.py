"""A vLLM engine in this process that follows the weights of a transformers model."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.rollout.vllm_adapters import AdapterFiles
from lightning_sd.rollout.vllm_weights import check_servable, iterate_weights, read_version

_ENGINES: weakref.WeakKeyDictionary[nn.Module, dict[str, VLLMEngine]] = weakref.WeakKeyDictionary()


class VLLMEngine:
    """Generates with vLLM, with the current weights of a model.

    The engine starts from the model's configuration alone; its weights come from the model in
    memory at the first :meth:`sync`.

    Args:
        model: A transformers causal language model, with LoRA adapters or without.
        settings: Arguments of ``vllm.LLM``, such as ``{"gpu_memory_utilization": 0.3}``.
        swap_adapters: Hand over the LoRA adapter as it is instead of merging it into the weights.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: The model is quantized or in shards, vLLM does not support its head size on
            this device, or its adapter cannot be swapped.
    """

    def __init__(
        self, model: nn.Module, settings: Mapping[str, Any], *, swap_adapters: bool = False
    ) -> None:
        check_servable(model)
        base = get_causal_lm(model)
        dtype = str(next(base.parameters()).dtype).removeprefix("torch.")
        self._folder = tempfile.TemporaryDirectory(prefix="vllm-config-")
        base.config.save_pretrained(self._folder.name)
        self._name_architecture(type(base).__name__)
        defaults = {"dtype": dtype, "skip_tokenizer_init": True, "load_format": "dummy"}
        self.adapters = AdapterFiles(model) if swap_adapters else None
        if self.adapters is not None:
            defaults |= self.adapters.list_settings()
        self.llm = start_llm(self._folder.name, base.config, {**defaults, **settings})
        self.lock = threading.Lock()
        self.version: tuple[Any, ...] | None = None
        self.lora_request: Any = None
        self.syncs = 0
        self.asleep = False

    def sync(self, model: nn.Module) -> bool:
        """Wake the engine, and hand it the model's weights if they changed since the last call.

        A swapped adapter is handed over with the next requests; its weights are not counted here.

        Args:
            model: The model with which the engine was started.

        Returns:
            Whether weights were handed over.
        """
        if self.asleep:
            self.llm.wake_up()
            self.asleep = False
        merge = self.adapters is None
        if self.adapters is not None:
            self.lora_request = self.adapters.write(model)
        version = read_version(model, adapters=merge)
        if version == self.version:
            return False
        weights = iterate_weights(model, merge=merge)
        iterator = {"weights_iterator": weights, "is_checkpoint_format": True}
        self.llm.collective_rpc("reload_weights", kwargs=iterator)
        # Blocks of the prefix cache were computed with the old weights.
        self.llm.reset_prefix_cache()
        self.version = version
        self.syncs += 1
        return True

    def generate(self, prompts: Sequence[Sequence[int]], params: Sequence[Any]) -> list[Any]:
        """Generate one completion per prompt; ``params`` are vLLM's ``SamplingParams``."""
        requests = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        outputs = self.llm.generate(
            requests, list(params), use_tqdm=False, lora_request=self.lora_request
        )
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


def get_engine(
    model: nn.Module, settings: Mapping[str, Any], *, swap_adapters: bool = False
) -> VLLMEngine:
    """Return the model's engine, and start it at the first call.

    Samplers of one model with equal settings share an engine, so that training and evaluation hold
    its weights once.

    Args:
        model: The student.
        settings: Arguments of ``vllm.LLM``.
        swap_adapters: See :class:`VLLMEngine`.
    """
    key = json.dumps([dict(settings), swap_adapters], sort_keys=True, default=str)
    engines = _ENGINES.setdefault(model, {})
    if key not in engines:
        engines[key] = VLLMEngine(model, settings, swap_adapters=swap_adapters)
    return engines[key]


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
