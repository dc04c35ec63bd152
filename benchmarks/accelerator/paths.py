"""Try each attention implementation, torch.compile and Liger's Triton kernels.

    python -m benchmarks.accelerator.paths --small

Each path scores the same completions; its hidden states are compared with eager attention's in
float32. A path that cannot run gives its reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.accelerator.device import SHAPES, build_model, emit, get_device, time_call
from benchmarks.accelerator.numerics import MODEL
from benchmarks.step_time.shapes import Shape
from lightning_sd.scoring import Scorer

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")
SLOW = ("flex_attention", "torch.compile")
"""Paths that compile for minutes on a processor; the small form leaves them out."""


@torch.no_grad()
def score(model: Any, shape: Shape) -> Tensor:
    """Return the hidden states that predict the completions, in float32 on the CPU."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(
        shape.vocab, (shape.rows, shape.prompt + shape.completion), generator=generator
    )
    rows = ids.tolist()
    prompts = [row[: shape.prompt - i % 4] for i, row in enumerate(rows)]
    scores = Scorer(model).score(prompts, [row[shape.prompt :] for row in rows])
    return scores.hidden.float().cpu()


def try_path(work: Callable[[], Tensor], expected: Tensor) -> dict[str, Any]:
    """Run a path; return its error relative to the expected result, or why it did not run."""
    try:
        result = work()
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return {"ran": False, "reason": f"{type(error).__name__}: {reason[0][:200]}"}
    gap = (result - expected).norm() / expected.norm()
    return {"ran": True, "error": float(gap), "seconds": time_call(work, 3)}


def use_liger(model: Any) -> Any:
    """Replace norms, rotary positions and feed-forward blocks by Liger's Triton kernels."""
    from liger_kernel.transformers import apply_liger_kernel_to_qwen3

    apply_liger_kernel_to_qwen3(model=model, fused_linear_cross_entropy=False)
    return model


def compare(shape: Shape, *, small: bool) -> list[dict[str, Any]]:
    """Return one row per path."""
    dtype = torch.bfloat16 if get_device().type == "cuda" else torch.float32
    expected = score(build_model(shape, attn_implementation="eager"), shape)
    models: dict[str, Callable[[], Any]] = {
        name: lambda name=name: build_model(shape, dtype=dtype, attn_implementation=name)
        for name in ATTENTION
    }
    models["torch.compile"] = lambda: compile_model(build_model(shape, dtype=dtype))
    models["liger kernels"] = lambda: use_liger(build_model(shape, dtype=dtype))
    rows = []
    for name, make in models.items():
        if small and name in SLOW:
            continue
        built: list[Any] = []

        def work(make: Any = make, built: list[Any] = built) -> Tensor:
            built.extend([make()] if not built else [])
            return score(built[0], shape)

        rows.append(
            {"path": name, "dtype": str(dtype).removeprefix("torch."), **try_path(work, expected)}
        )
    return rows


def compile_model(model: Any) -> Any:
    """Compile the forward pass in place; the scorer calls the model without its head."""
    model.base_model.compile(dynamic=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    emit({"rows": compare(SHAPES["tiny"] if args.small else MODEL, small=args.small)})


if __name__ == "__main__":
    main()
