"""What a sampler does per token, counted in Python calls."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import lightning_sd
from lightning_sd.rollout import TransformersSampler

COUNTED = (str(Path(lightning_sd.__file__).parent), inspect.__file__)
PROMPTS = [[5, 6, 7], [8, 9, 10]]
SAMPLES = 3


def count_calls(model: Any, new_tokens: int) -> Counter[str]:
    """Count the calls of this package's functions, and what reads signatures, by name."""
    calls = Counter[str]()

    def count(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(COUNTED):
            calls[frame.f_code.co_name] += 1

    sampler = TransformersSampler(max_new_tokens=new_tokens)
    arguments = {"samples": SAMPLES, "stop_ids": [], "generator": torch.Generator()}
    sys.setprofile(count)
    try:
        sampler.sample(model, PROMPTS, **arguments)
    finally:
        sys.setprofile(None)
    return calls


def test_python_calls_per_token(make_llama: Any) -> None:
    model = make_llama()
    count_calls(model, 2)  # plans once
    per_token = count_calls(model, 6)
    per_token.subtract(count_calls(model, 5))
    in_layers = per_token.pop("update") + per_token.pop("_set_views") + per_token.pop("<genexpr>")
    assert in_layers == 5 * model.config.num_hidden_layers
    assert per_token.total() <= 16, +per_token
