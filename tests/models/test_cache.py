from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.models.tiny import make_model
from lightning_sd.models import LoRA
from lightning_sd.models.cache import get_cache_argument, left_pad
from lightning_sd.models.lora import add_lora
from lightning_sd.scoring import Scorer

CPU = torch.device("cpu")


def test_left_padding_ends_every_prompt_at_the_same_column() -> None:
    ids, mask, positions = left_pad([[5, 6], [7, 8, 9]], CPU)
    assert ids.tolist() == [[5, 5, 6], [7, 8, 9]]
    assert mask is not None
    assert mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert positions.tolist() == [[0, 0, 1], [0, 1, 2]]


def test_equal_lengths_need_no_mask() -> None:
    ids, mask, positions = left_pad([[5, 6], [7, 8]], CPU)
    assert ids.tolist() == [[5, 6], [7, 8]]
    assert mask is None
    assert positions.tolist() == [[0, 1], [0, 1]]


def test_the_cache_argument_is_found_inside_an_adapter(make_llama: Any, make_gpt2: Any) -> None:
    pytest.importorskip("peft")
    for make in (make_llama, make_gpt2):
        assert get_cache_argument(make()) in ("cache", "past_key_values")
    wrapped = add_lora(make_llama(), LoRA(r=1, target_modules=["q_proj"]))
    assert get_cache_argument(wrapped) == get_cache_argument(make_llama())


def test_padded_prompts_of_gemma_3n_have_a_gradient():
    """It divides by the size of embeddings, and that of its padding token is 0."""
    model = make_model("gemma3n_text")
    scores = Scorer(model, call_cost=0).score([[5, 6, 7], [8, 9], [8, 9]], [[10, 11]] * 3)
    scores.logits().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
