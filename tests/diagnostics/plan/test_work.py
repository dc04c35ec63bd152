"""Counted FLOPs of a step against those that torch counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_sd import LoRA, TransformersSampler
from lightning_sd.diagnostics.plan.size import measure_size
from lightning_sd.diagnostics.plan.work import Workload, count_flops, lay_out
from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.lora import add_lora
from lightning_sd.modules.memory import MemoryLimits
from lightning_sd.modules.safe_scorer import MemorySafeScorer

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


def test_a_layer_has_the_same_values_with_checkpointing(model):
    plain = measure_size(model, checkpointing=False)
    model.train().gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    assert measure_size(model, checkpointing=True).layer == pytest.approx(plain.layer, rel=0.1)
    assert model.training


def test_checkpointing_adds_a_forward_pass(model):
    size = measure_size(model, checkpointing=True)
    planned = count_flops(size, WORK)
    again = count_flops(size, Workload(**{**vars(WORK), "checkpointing": True}))
    with torch.no_grad():
        forward = count(lambda: score(model, WORK.prompt))
    head = 2 * size.head * WORK.answers
    assert again.student - planned.student == pytest.approx(forward - head, rel=0.1)


def test_flops_within_a_token_budget_are_within_a_tenth_of_the_counted_ones(model):
    work = replace(WORK, prompt=700, teacher_prompt=760, max_tokens=3 * 724)
    assert [len(lay_out(work, teacher=teacher)) for teacher in (False, True)] == [2, 3]
    planned = count_flops(measure_size(model, checkpointing=False), work)
    scorer = MemorySafeScorer(model, MemoryLimits(), work.max_tokens)
    answers = [[0] * work.answer] * work.rows

    def score(prompt):
        prompts = [[row // 3] * work.prompt + [row] * (prompt - work.prompt) for row in range(6)]
        return scorer.score(prompts, answers).logits().logsumexp(-1).sum()

    score(work.prompt)  # the first call measures what the model supports
    with torch.no_grad():
        teacher = count(lambda: score(work.teacher_prompt))
    student = count(lambda: score(work.prompt).backward())
    assert planned.teacher == pytest.approx(teacher, rel=0.1)
    assert planned.student == pytest.approx(student, rel=0.1)
    unbound = count_flops(measure_size(model, checkpointing=False), replace(work, max_tokens=None))
    assert unbound.student < 0.9 * planned.student


def test_long_shared_prompts_are_encoded_once():
    work = Workload(questions=2, samples=4, prompt=800, teacher_prompt=900, answer=50)
    assert count_tokens(work, teacher=False) < 2 * 800 + 8 * 60
    assert count_tokens(work, teacher=True) < 2 * 800 + 8 * 160
    whole = Workload(**{**vars(work), "checkpointing": True})
    assert count_tokens(whole, teacher=False) == 8 * 850


def count_tokens(work: Workload, *, teacher: bool) -> int:
    return sum(passes.tokens for passes in lay_out(work, teacher=teacher))
