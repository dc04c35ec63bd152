"""NaN and infinite weights or logits stop with the tensor's name."""

import pytest
import torch

from lightning_sd import LoadedModel, TransformersSampler
from lightning_sd.scoring import Scorer


def sample(model, temperature):
    return TransformersSampler(max_new_tokens=3, temperature=temperature).sample(
        model, [[5, 6], [7]], samples=2, stop_ids=[1], generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_model_with_such_weights_is_refused_when_it_is_loaded(make_llama, tokenizer, value):
    model = make_llama()
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = value
    with pytest.raises(FloatingPointError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        LoadedModel(model, tokenizer).load()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("probed", [False, True])
def test_sampling_stops_with_the_tensors_name_greedy_too(make_llama, temperature, probed):
    model = make_llama()
    if probed:
        sample(model, temperature)
    model.lm_head.weight.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"lm_head\.weight.*diverged"):
        sample(model, temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_overflow_name_the_precision(make_llama, temperature):
    model = make_llama()
    sample(model, temperature)
    model.lm_head.weight.data *= 1e38
    model.model.norm.weight.data *= 1e10
    with pytest.raises(FloatingPointError, match="all weights are finite"):
        sample(model, temperature)


def test_scoring_stops_as_well(make_llama):
    model = make_llama()
    model.model.embed_tokens.weight.data[:] = float("nan")
    with pytest.raises(FloatingPointError, match="embed_tokens"):
        Scorer(model).score([[5, 6]], [[7]])
