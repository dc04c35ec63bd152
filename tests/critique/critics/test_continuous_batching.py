"""Continuous batching, by transformers itself on the CPU."""

import sys
import threading
import types

import pytest
import torch

from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.service import CritiqueService
from lightning_sd.critique.critics.continuous_batching import decode_continuously
from lightning_sd.critique.critics.lm import LMCritic
from lightning_sd.models import LoadedModel
from tests.critique.cache.fakes import request

SMALL = {"page_size": 16}
PROMPT = "{question} {attempt}"


def critic(model, tokenizer, config=SMALL, **options):
    settings = {"max_new_tokens": 12, "batch_size": 3, "prompt": PROMPT, **options}
    return LMCritic(LoadedModel(model, tokenizer), continuous_batching_config=config, **settings)


def texts(one, requests):
    critiques = dict(one.stream(requests))
    assert sorted(critiques) == list(range(len(requests)))
    return [
        (critiques[i].text, critiques[i].tokens, critiques[i].refused) for i in range(len(requests))
    ]


@pytest.fixture
def ending(make_llama, tokenizer):
    """A model that ends some of its completions early."""
    model = make_llama(seed=3)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    return model


def test_writes_what_the_plain_path_writes(ending, tokenizer):
    requests = [request(i, "x" * (i % 5)) for i in range(9)]
    plain = texts(critic(ending, tokenizer, None), requests)
    assert texts(critic(ending, tokenizer), requests) == plain
    # So few blocks that most must wait for one that is free.
    assert texts(critic(ending, tokenizer, {**SMALL, "num_blocks": 12}), requests) == plain
    assert {tokens for _, tokens, _ in plain} > {12}, "some must end early for the test to tell"
    assert [c.tokens for c in critic(ending, tokenizer).critique(requests)] == [t[1] for t in plain]


def test_decides_nothing_and_so_is_no_part_of_the_identity(make_llama, tokenizer):
    model = make_llama()
    assert critic(model, tokenizer).identity() == critic(model, tokenizer, None).identity()


def test_prompts_that_are_too_long_are_refused_alone(make_llama, tokenizer):
    model = make_llama(max_position_embeddings=64)
    one = critic(model, tokenizer)
    long, short = one.critique([request(1, "word " * 60), request(1, "a")])
    assert "too long" in long.refused
    assert short.tokens > 0
    assert "too long" in one.critique([request(1, "word " * 60)])[0].refused


def test_leaves_random_numbers_and_the_model_as_they_were(make_llama, tokenizer):
    model = make_llama()
    before, attention = torch.get_rng_state(), model.config._attn_implementation
    critic(model, tokenizer).critique([request(1)])
    assert torch.equal(torch.get_rng_state(), before)
    assert model.config._attn_implementation == attention


def test_each_critique_is_handed_out_when_it_is_done_and_nothing_runs_on(make_llama, tokenizer):
    running = threading.active_count()
    stream = critic(make_llama(), tokenizer).stream([request(i) for i in range(4)])
    _, critique = next(stream)
    assert critique.seconds > 0
    assert threading.active_count() == running + 1
    stream.close()
    assert threading.active_count() == running


def test_an_error_in_what_is_done_with_a_critique_leaves_nothing_running(
    make_llama, tokenizer, monkeypatch
):
    running = threading.active_count()
    one = critic(make_llama(), tokenizer)
    monkeypatch.setattr(one, "_decode", lambda *arguments: [][0])
    with pytest.raises(IndexError) as caught:
        one.critique([request(i) for i in range(4)])
    assert caught.tb is not None  # which keeps all frames alive
    assert threading.active_count() == running


def test_fills_the_cache(make_llama, tokenizer, tmp_path):
    requests = [request(i) for i in range(7)]
    service = CritiqueService(critic(make_llama(), tokenizer), CritiqueCache(tmp_path))
    first = service.ask(requests)
    assert service.pop_counters()["critique_misses"] == 7
    assert service.ask(requests) == first
    assert service.pop_counters()["critique_hits"] == 7


def test_nothing_asked_nothing_begun():
    arguments = {"max_new_tokens": 3, "stop_ids": [1], "settings": {}}
    assert list(decode_continuously(None, [], **arguments)) == []


def test_a_prompt_that_the_cache_cannot_hold_is_an_error(make_llama, tokenizer):
    one = critic(make_llama(), tokenizer, {**SMALL, "num_blocks": 1})
    with pytest.raises(RuntimeError, match="Continuous batching"):
        one.critique([request(1, "word " * 40)])


def test_an_error_in_the_model_is_raised(make_llama, tokenizer):
    model = make_llama()

    def broken(*args, **kwargs):
        raise ArithmeticError("no such layer")

    model.model.layers[1].forward = broken
    with pytest.raises((RuntimeError, ArithmeticError), match="no such layer"):
        critic(model, tokenizer).critique([request(1), request(2)])


def test_models_that_cannot_are_told(tokenizer):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 2)

    with pytest.raises(ValueError, match="Own does not support"):
        critic(Own(), tokenizer).critique([request(1)])


def test_unknown_settings_are_told_early():
    with pytest.raises(ValueError, match=r"does not know \['pages'\].*page_size"):
        LMCritic("some-model", continuous_batching_config={"pages": 3})


def test_an_old_transformers_is_told_early(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", types.ModuleType("transformers"))
    with pytest.raises(ImportError, match="leave the option out"):
        LMCritic("some-model", continuous_batching_config={})
