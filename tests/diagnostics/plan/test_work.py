"""Counted FLOPs of a step against those that torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_sd import LoRA, TransformersSampler
from lightning_sd.diagnostics.plan.size import measure_size
from lightning_sd.diagnostics.plan.work import Workload, count_flops, lay_out
from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.lora import add_lora

WORK = Workload(questions=2, samples=3, prompt=40, teacher_prompt=60, answer=24)


@pytest.fixture(params=[False, True], ids=["full", "lora"])
def model(request):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=300,
        tie_word_embeddings=True,
        eos_token_id=None,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    return add_lora(model, LoRA(r=4)) if request.param else model


def count(function) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def score(model, prompt: int) -> torch.Tensor:
    base = get_causal_lm(model)
    ids = torch.ones(WORK.rows, prompt + WORK.answer, dtype=torch.long)
    hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state
    return base.lm_head(hidden[:, prompt - 1 : -1]).logsumexp(-1).sum()


def test_flops_of_each_phase_are_within_a_tenth_of_the_counted_ones(model):
    planned = count_flops(measure_size(model, checkpointing=False), WORK)
    sampler = TransformersSampler(max_new_tokens=WORK.answer)
    prompts = [[1] * WORK.prompt] * WORK.questions

    def sample():
        seeded = torch.Generator().manual_seed(0)
        sampler.sample(model, prompts, samples=3, stop_ids=[999], generator=seeded)

    sample()  # the first call measures what the model supports
    rollout = count(sample)
    with torch.no_grad():
        teacher = count(lambda: score(model, WORK.teacher_prompt))
    student = count(lambda: score(model, WORK.prompt).backward())
    assert planned.rollout == pytest.approx(rollout, rel=0.1)
    assert planned.teacher == pytest.approx(teacher, rel=0.1)
    assert planned.student == pytest.approx(student, rel=0.1)


def test_checkpointing_adds_a_forward_pass(model):
    size = measure_size(model, checkpointing=True)
    planned = count_flops(size, WORK)
    again = count_flops(size, Workload(**{**vars(WORK), "checkpointing": True}))
    with torch.no_grad():
        forward = count(lambda: score(model, WORK.prompt))
    head = 2 * size.head * WORK.answers
    assert again.student - planned.student == pytest.approx(forward - head, rel=0.1)


def test_long_shared_prompts_are_encoded_once():
    work = Workload(questions=2, samples=4, prompt=800, teacher_prompt=900, answer=50)
    assert lay_out(work, teacher=False).tokens < 2 * 800 + 8 * 60
    assert lay_out(work, teacher=True).tokens < 2 * 800 + 8 * 160
    whole = Workload(**{**vars(work), "checkpointing": True})
    assert lay_out(whole, teacher=False).tokens == 8 * 850
