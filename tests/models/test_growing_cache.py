"""The decoding cache against transformers' own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lightning_sd.models import growing_cache as growing
from lightning_sd.models.growing_cache import LEAST_ROOM, GrowingLayer, make_growing_cache
from lightning_sd.rollout import Completion, TransformersSampler
from tests.scoring.test_scoring import small

ROWS, HEADS, SIZE = 3, 2, 4
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("Qwen2", {}),
    ("Qwen3", {}),
    ("Gemma2", {"sliding_window": 3}),
    ("Olmo3", {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}),
    ("Mistral", {"sliding_window": 2}),
    ("Cohere", {}),
    ("Granite", {}),
    ("Olmo2", {}),
    ("Phi3", {}),
]


def states(tokens: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, HEADS, tokens, SIZE), torch.randn(rows, HEADS, tokens, SIZE)


def both(layers: tuple[DynamicLayer, DynamicLayer], method: str, *args: Any) -> None:
    """The same to both; they must hold the same afterwards."""
    found, expected = (getattr(layer, method)(*args) for layer in layers)
    if found is not None:
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    ours, theirs = layers
    assert torch.equal(ours.keys, theirs.keys)
    assert torch.equal(ours.values, theirs.values)
    assert ours.get_seq_length() == theirs.get_seq_length()
    assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


def test_a_layer_holds_what_transformers_own_holds() -> None:
    layers = (GrowingLayer(), DynamicLayer())
    both(layers, "update", *states(5))
    both(layers, "batch_repeat_interleave", 3)
    for tokens in (1, 1, LEAST_ROOM - 2, 1, 3, 2 * LEAST_ROOM, 1):
        both(layers, "update", *states(tokens, 3 * ROWS))
    both(layers, "batch_select_indices", torch.tensor([8, 0, 3, 3]))
    both(layers, "update", *states(1, 4))
    both(layers, "reorder_cache", torch.tensor([3, 2, 1, 0]))
    both(layers, "crop", -2)
    both(layers, "update", *states(1, 4))
    for layer in layers:
        layer.reset()
    both(layers, "update", *states(2, 1))


def test_rows_that_fill_the_places_of_others_are_the_only_ones_copied() -> None:
    layers = (GrowingLayer(), DynamicLayer())
    both(layers, "update", *states(5, 6))
    before, place = layers[0].keys.clone(), layers[0].keys.data_ptr()
    both(layers, "reorder_cache", torch.tensor([0, 4, 2, 5]))
    assert layers[0].keys.data_ptr() == place
    assert torch.equal(layers[0].keys, before[[0, 4, 2, 5]])
    both(layers, "reorder_cache", torch.tensor([0, 1]))
    assert layers[0].keys.data_ptr() == place
    both(layers, "update", *states(1, 2))
    both(layers, "reorder_cache", torch.tensor([1, 0]))
    assert layers[0].keys.data_ptr() != place


def test_the_keys_stay_where_they_are_until_the_room_is_used_up() -> None:
    layer = GrowingLayer()
    layer.update(*states(10))
    places = []
    for _ in range(LEAST_ROOM + 1):
        layer.update(*states(1))
        places.append(layer.keys.data_ptr())
    assert len(set(places[:-1])) == 1
    assert places[-1] != places[0]


def test_rooms_grow_with_the_cache() -> None:
    """Else a completion of n tokens would be copied n / 64 times."""
    layer, places = GrowingLayer(), set()
    for _ in range(4000):
        layer.update(*states(1, 1))
        places.add(layer.keys.data_ptr())
    assert len(places) < 25


def test_only_plain_layers_are_ours() -> None:
    model = small("Gemma2", sliding_window=3)
    kinds = [type(layer) for layer in make_growing_cache(model.config).layers]
    assert len(kinds) == 2
    assert GrowingLayer in kinds
    assert DynamicLayer not in kinds
    without = make_growing_cache(None)
    without.update(*states(2), 1)
    assert [type(layer) for layer in without.layers] == [GrowingLayer] * 2


def sampled(model: Any, **settings: Any) -> list[Completion]:
    """Padded prompts, rows that leave early, and more tokens than the first room."""
    sampler = TransformersSampler(max_new_tokens=LEAST_ROOM + 10, **settings)
    prompts = [[5, 6], [7, 8, 9, 10, 11, 12], [14]]
    generator = torch.Generator().manual_seed(0)
    return sampler.sample(model, prompts, samples=4, stop_ids=[3, 4], generator=generator)


@pytest.mark.parametrize(("kind", "config"), [("Llama", {}), ("GPT2", {}), *KINDS])
def test_each_architecture_decodes_the_same_with_either_cache(
    kind: str, config: dict[str, Any], make_llama: Any, make_gpt2: Any, monkeypatch: Any
) -> None:
    makers = {"Llama": make_llama, "GPT2": make_gpt2}
    model = makers[kind]() if kind in makers else small(kind, **config)
    found = sampled(model)
    monkeypatch.setattr(growing, "make_growing_cache", lambda config: DynamicCache(config=config))
    expected = sampled(model)
    assert [c.ids for c in found] == [c.ids for c in expected]
    assert len({len(c.ids) for c in found}) > 1
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
