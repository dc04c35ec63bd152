"""Models that a cache would sample wrongly take the plain path, or are refused by name."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.models.tiny import make_model
from lightning_sd import ReferenceSolution, TransformersSampler
from lightning_sd.models.dropout import disable_dropout
from lightning_sd.models.probing import compute_logits
from lightning_sd.rollout.decoding import CachedDecoding, DecodingPlan, plan_decoding
from lightning_sd.scoring import Scorer
from tests.stubs import LabData, module, trainer

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]


class IdsOnly(nn.Module):
    """A recurrent model of the user's own, which takes ``input_ids`` and nothing else."""

    def __init__(self, vocab=32):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.cell = nn.Embedding(vocab, 16), nn.GRU(16, 16, batch_first=True)
        self.head = nn.Linear(16, vocab)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.6)

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.head(self.cell(self.embed(input_ids))[0]))


class IgnoresCache(IdsOnly):
    """Takes every argument that samplers pass, and drops the cache."""

    def forward(self, input_ids, **kwargs):
        return super().forward(input_ids)


class LooksAhead(IdsOnly):
    """Not causal: every token sees the whole row."""

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        return SimpleNamespace(logits=self.head(hidden + hidden.mean(1, keepdim=True)))


class PaddingMatters(IdsOnly):
    """Reads the length of the batch, so that only rows of equal length may be together."""

    def forward(self, input_ids):
        hidden = self.cell(self.embed(input_ids))[0]
        steps = torch.arange(input_ids.shape[1])
        return SimpleNamespace(
            logits=self.head(
                hidden * (1 + (input_ids == 0).any(1)[:, None, None] * (steps + 1)[None, :, None])
            )
        )


def make_quiet(family):
    model = make_model(family)
    disable_dropout(model)
    return model


def sample(model, temperature=1.0, samples=3):
    return TransformersSampler(max_new_tokens=6, temperature=temperature).sample(
        model,
        PROMPTS,
        samples=samples,
        stop_ids=[3],
        generator=torch.Generator().manual_seed(0),
    )


def check_exact(model):
    """Samples come with the log-probabilities of the model's own forward pass, and the scorer's."""
    completions = sample(model)
    assert [c.prompt for c in completions] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ids = [list(c.ids) for c in completions]
    scored = Scorer(model).score([PROMPTS[c.prompt] for c in completions], ids).logits()
    sampled = torch.tensor([p for c in completions for p in c.logprobs])
    flat = torch.tensor([i for row in ids for i in row])
    torch.testing.assert_close(
        scored.log_softmax(-1).gather(-1, flat[:, None])[:, 0], sampled, rtol=1e-4, atol=1e-4
    )
    for c in completions:
        row = [*PROMPTS[c.prompt], *c.ids]
        logits = compute_logits(model, [row])[0, len(PROMPTS[c.prompt]) - 1 : -1]
        own = logits.log_softmax(-1).gather(-1, torch.tensor(c.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(c.logprobs), own, rtol=1e-4, atol=1e-4)
    for c in sample(model, temperature=0.0, samples=1):
        row = [*PROMPTS[c.prompt], *c.ids]
        logits = compute_logits(model, [row])[0, len(PROMPTS[c.prompt]) - 1 : -1]
        assert tuple(logits.argmax(-1).tolist()) == c.ids


@pytest.mark.parametrize("kind", [IdsOnly, IgnoresCache])
def test_modules_of_the_users_own_are_served_by_the_plain_path(kind, caplog):
    model = kind()
    with caplog.at_level(logging.WARNING, logger="lightning_sd"):
        assert plan_decoding(model) == DecodingPlan(cached=False, padded=True)
    assert f"{kind.__name__} decodes without a cache" in caplog.text
    check_exact(model)


def test_a_module_that_padding_changes_is_served_in_rows_of_equal_length():
    model = PaddingMatters()
    assert plan_decoding(model) == DecodingPlan(cached=False, padded=False)
    check_exact(model)


@pytest.mark.parametrize("kind", [IdsOnly, IgnoresCache, PaddingMatters])
def test_modules_of_the_users_own_train_on_what_they_sample(kind, tokenizer, tmp_path):
    fit = trainer(tmp_path, ReferenceSolution(), max_steps=2)
    fit.fit(module(kind(320), tokenizer, check_every=1), LabData(batch_size=2))
    assert fit.logged_metrics["train/sampler_gap"] < 1e-5


def test_a_model_that_looks_ahead_is_refused_by_name_before_anything_is_sampled():
    with pytest.raises(ValueError, match="LooksAhead is not causal"):
        sample(LooksAhead())
    with pytest.raises(ValueError, match="LooksAhead is not causal"):
        Scorer(LooksAhead()).score([[5]], [[6]])


def test_an_encoder_is_refused_unless_it_is_configured_as_a_decoder():
    with pytest.raises(ValueError, match=r"BertLMHeadModel is not causal.*is_decoder"):
        sample(make_model("bert", is_decoder=False))
    check_exact(make_quiet("bert"))


@pytest.mark.parametrize("family", ["rwkv", "openai-gpt", "xlstm"])
def test_families_whose_state_no_cache_passes_on_take_the_plain_path(family):
    model = make_quiet(family)
    assert not plan_decoding(model).cached
    check_exact(model)


def test_a_family_that_is_not_causal_by_design_is_refused():
    with pytest.raises(ValueError, match="XLNetLMHeadModel is not causal"):
        sample(make_quiet("xlnet"))


def test_a_cache_that_does_not_put_rows_into_the_asked_order_is_not_used(monkeypatch):
    select = CachedDecoding.select
    monkeypatch.setattr(CachedDecoding, "select", lambda self, rows: select(self, rows.sort()[0]))
    assert not plan_decoding(make_quiet("llama")).cached


def test_the_model_is_probed_once(monkeypatch):
    from lightning_sd.rollout import decoding

    model, count = IdsOnly(), []
    monkeypatch.setattr(
        decoding, "_probe_plan", lambda m: count.append(m) or DecodingPlan(False, True)
    )
    for _ in range(3):
        plan_decoding(model)
    assert count == [model]
