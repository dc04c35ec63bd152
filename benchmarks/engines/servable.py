"""Widen the embedded solver's heads to a size that vLLM serves on a CPU.

    python -m benchmarks.engines.servable out/servable

The solver's heads have 24 values; vLLM's CPU kernels know 32. The added values are zero, so the
widened model computes the same function. They stay zero in training: the gradient of a value that
meets only zeros is zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_sd.models import PretrainedModel

SOLVER = "package:lightning_sd/lab/solver"


def widen_heads(model: Any, size: int) -> Any:
    """Return a Llama model with wider heads that computes the same function.

    Args:
        model: A Llama model with plain rotary positions and without attention biases.
        size: The new head size; even, and at least the old one.
    """
    old = model.config.head_dim
    config = type(model.config).from_dict(model.config.to_dict())
    config.head_dim = size
    # Rotary frequencies are theta^(-2i / size): this theta keeps the first old/2 of them.
    theta = model.config.rope_parameters["rope_theta"] ** (size / old)
    config.rope_parameters = {**model.config.rope_parameters, "rope_theta": theta}
    wide = type(model)(config)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        part = name.split(".")[-2]
        if part in ("q_proj", "k_proj", "v_proj"):
            state[name] = _spread(tensor, old, size)
        elif part == "o_proj":
            state[name] = _spread(tensor.T, old, size).T.contiguous()
        if part == "q_proj":
            state[name] *= (size / old) ** 0.5  # attention divides by the root of the head size
    wide.load_state_dict(state)
    wide.generation_config = model.generation_config
    return wide.eval()


def _spread(weight: Tensor, old: int, size: int) -> Tensor:
    """Put each half of a head at the start of a half of the wider head: ``[heads * size, width]``.

    Rotary positions turn the values i and i + half together.
    """
    halves = weight.unflatten(0, (-1, 2, old // 2))
    wide = halves.new_zeros(halves.shape[0], 2, size // 2, weight.shape[1])
    wide[:, :, : old // 2] = halves
    return wide.flatten(0, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=32)
    args = parser.parse_args()
    model, tokenizer = PretrainedModel(SOLVER).load()
    widen_heads(model, args.size).save_pretrained(args.folder)
    tokenizer.save_pretrained(args.folder)


if __name__ == "__main__":
    main()
