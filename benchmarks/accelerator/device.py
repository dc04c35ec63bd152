"""The device, its clock, its memory, and the model shapes of the kit."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.step_time.clock import peak_mib
from benchmarks.step_time.shapes import Shape

PREFIX = "RESULT "
POSITIONS = 4096
# A step has 16 completions of 256 tokens. Head size 128, as Qwen3 has.
SHAPES = {
    "tiny": Shape("random", 2, 64, 128, 4, 2, 300, 2, 2, 8, 6, 20),
    "0.5b": Shape("random", 28, 1024, 3072, 8, 4, 151_936, 4, 4, 256, 256, 600),
    "1.7b": Shape("random", 28, 2048, 6144, 16, 8, 151_936, 4, 4, 256, 256, 600),
}


def get_device() -> torch.device:
    """Return the GPU, or the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe_machine() -> dict[str, Any]:
    """Return the names and versions that a result depends on."""
    import transformers

    import lightning_sd

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "CPU",
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1) if cuda else None,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "lightning_sd": lightning_sd.__version__,
    }


def synchronize() -> None:
    """Wait until the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def time_call(work: Callable[[], Any], repeats: int = 5) -> float:
    """Return the median seconds of a call, after one call to warm up."""
    times = []
    for _ in range(repeats + 1):
        synchronize()
        begun = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def reset_peak() -> float:
    """Start to measure peak memory; return the MiB in use now."""
    if not torch.cuda.is_available():
        return peak_mib()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 2**20


def read_peak() -> float:
    """Return the largest memory in use since :func:`reset_peak`, in MiB (CPU: since the start)."""
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else peak_mib()


def measure_rates(dtype: torch.dtype) -> dict[str, float]:
    """Measure what the roofline is made of: FLOP/s of a matrix product, bytes/s of a copy."""
    device = get_device()
    size = 8192 if device.type == "cuda" else 512
    a = torch.randn(size, size, device=device, dtype=dtype)
    out = torch.empty_like(a)
    product = time_call(lambda: torch.mm(a, a, out=out))
    copy = time_call(lambda: out.copy_(a))
    return {
        "flops_per_second": 2 * size**3 / product,
        "bytes_per_second": 2 * a.numel() * a.element_size() / copy,
    }


def build_model(shape: Shape, *, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """Build a random Qwen3 model on the device, with an end token that cannot be sampled.

    Args:
        shape: Its sizes.
        dtype: Of its weights.
        **settings: Further fields of the configuration, such as ``attn_implementation``.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig, Qwen3Config

    attention = settings.pop("attn_implementation", "sdpa")
    config = Qwen3Config(
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.width // shape.heads,
        vocab_size=shape.vocab,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **settings,
    )
    torch.manual_seed(0)
    with get_device():
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    model.generation_config = GenerationConfig(
        eos_token_id=shape.vocab, pad_token_id=shape.vocab + 1
    )
    return model.to(dtype)


def emit(result: Any) -> None:
    """Print the line that ``run`` reads."""
    print(PREFIX + json.dumps(result), flush=True)
