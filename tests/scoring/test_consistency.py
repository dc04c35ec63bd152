"""A sampler whose log-probabilities are not the model's stops training with both numbers."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from lightning_sd import LoRA, TransformersSampler
from lightning_sd.models.lora import add_lora
from lightning_sd.scoring import Scorer
from lightning_sd.scoring.consistency import check_sampled_logprobs
from tests.stubs import LabData, SameAsStudent, module, trainer

PROMPTS = [[5, 6, 7], [8, 9]]


def sample(model, temperature=1.0):
    return TransformersSampler(max_new_tokens=8, temperature=temperature).sample(
        model, PROMPTS, samples=2, stop_ids=[1], generator=torch.Generator().manual_seed(0)
    )


def compare(model, completions, temperature=1.0, change=lambda p: p):
    ids = [c.ids for c in completions]
    scores = Scorer(model).score([PROMPTS[c.prompt] for c in completions], ids)
    logprobs = [change(c.logprobs) for c in completions]
    return check_sampled_logprobs(scores, ids, logprobs, temperature)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_samplers_own_numbers_pass(tiny_llama, temperature):
    assert compare(tiny_llama, sample(tiny_llama, temperature), temperature) < 1e-4


def test_a_gap_names_both_numbers(tiny_llama):
    completions = sample(tiny_llama)
    with pytest.raises(RuntimeError, match=r"sampler's log-probability is -\d.*scorer's -\d"):
        compare(tiny_llama, completions, change=lambda p: (p[0] - 0.1, *p[1:]))
    with pytest.raises(RuntimeError, match="disagree"):
        compare(tiny_llama, completions, temperature=0.5)
    with pytest.raises(RuntimeError, match="disagree"):
        compare(tiny_llama, completions, change=lambda p: (float("nan"), *p[1:]))


def test_rows_without_log_probabilities_are_left_out(tiny_llama):
    completions = sample(tiny_llama)
    assert compare(tiny_llama, completions, change=lambda p: None) is None
    completions[0] = replace(completions[0], logprobs=None)
    assert compare(tiny_llama, completions) < 1e-4


def test_half_precision_passes_and_other_weights_do_not(make_llama):
    model = make_llama(dtype=torch.bfloat16)
    completions = sample(model)
    compare(model, completions)
    with pytest.raises(RuntimeError, match="disagree"):
        compare(make_llama(seed=1, dtype=torch.bfloat16), completions)


@dataclass(frozen=True)
class StaleSampler(TransformersSampler):
    """Like a server that was never given the trained weights."""

    def sample(self, model, prompts, **kwargs):
        completions = super().sample(model, prompts, **kwargs)
        return [replace(c, logprobs=tuple(p - 0.5 for p in c.logprobs)) for c in completions]


@pytest.mark.parametrize(("every", "stops"), [(1, True), (100, True), (0, False)])
def test_training_stops_in_the_first_step(make_llama, tokenizer, tmp_path, every, stops):
    student = module(
        make_llama(), tokenizer, sampler=StaleSampler(max_new_tokens=8), check_every=every
    )
    fit = trainer(tmp_path, SameAsStudent(), max_steps=1).fit
    if stops:
        with pytest.raises(RuntimeError, match="disagree"):
            fit(student, LabData())
    else:
        fit(student, LabData())


def test_the_gap_is_logged_in_the_steps_that_are_checked(
    make_llama, tokenizer, tmp_path, monkeypatch
):
    published = []
    student = module(make_llama(), tokenizer, check_every=2)
    monkeypatch.setattr(student, "publish_means", published.append)
    trainer(tmp_path, SameAsStudent(), max_steps=4).fit(student, LabData())
    assert ["sampler_gap" in means for means in published] == [True, False, True, False]
    assert 0 < published[0]["sampler_gap"] < 1e-4


def test_adapters_with_a_dropout_of_their_own_are_not_compared(make_llama, tokenizer, tmp_path):
    model = add_lora(make_llama(), LoRA(r=2, dropout=0.5))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    trainer(tmp_path, SameAsStudent(), max_steps=1).fit(module(model, tokenizer), LabData())
