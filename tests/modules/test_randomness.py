"""Which random numbers and which parameters a batch and a context's texts get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_sd import EMATeacher, FrozenTeacher, ReferenceSolution, TransformersSampler
from lightning_sd.types import Rollout
from tests.stubs import LabData, module

PROMPT = ({"role": "user", "content": "What is 7+5?"},)


def ready(make_llama: Any, tokenizer: Any, *, index: int = 0, **settings: Any) -> Any:
    """A module with its student loaded, at a batch of a training run that was never started."""
    student = module(make_llama(), tokenizer, **settings)
    student.configure_model()
    student._trainer = at(index)
    return student


def at(index: int) -> Any:
    return SimpleNamespace(
        datamodule=LabData(),
        predicting=False,
        world_size=1,
        global_rank=0,
        fit_loop=SimpleNamespace(total_batch_idx=index),
    )


@pytest.fixture
def one_process(monkeypatch: Any) -> None:
    from lightning_sd import SelfDistillModule

    monkeypatch.setattr(SelfDistillModule, "global_rank", 0)


def ids(rollouts: list[Rollout]) -> list[tuple[int, ...]]:
    return [rollout.ids for rollout in rollouts]


@pytest.mark.usefixtures("one_process")
def test_each_training_batch_draws_numbers_of_its_own(make_llama: Any, tokenizer: Any) -> None:
    student = ready(make_llama, tokenizer)
    questions = LabData().questions("train")[:2]
    drawn = []
    for index in (0, 1, 0):
        student._trainer = at(index)
        drawn.append(ids(student.gather_rollouts(questions)))
    assert drawn[0] == drawn[2]
    assert drawn[0] != drawn[1]


@pytest.mark.usefixtures("one_process")
def test_parts_of_a_batch_draw_numbers_of_their_own(make_llama: Any, tokenizer: Any) -> None:
    """With the same question in both parts, equal numbers would give equal answers."""
    student = ready(make_llama, tokenizer, overlap=2, samples=2)
    question = LabData().questions("train")[0]
    drawn = ids(student.gather_rollouts([question, question]))
    assert drawn[:2] != drawn[2:]


@pytest.mark.usefixtures("one_process")
def test_texts_of_different_batches_are_drawn_apart(make_llama: Any, tokenizer: Any) -> None:
    student = ready(make_llama, tokenizer)
    sampler = TransformersSampler(max_new_tokens=12)
    texts = []
    for index in (0, 1, 0):
        student._trainer = at(index)
        texts.append(student.write([PROMPT] * 3, sampler=sampler)[1].ids)
    assert texts[0] == texts[2]
    assert texts[0] != texts[1]


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("kind", [FrozenTeacher, EMATeacher])
def test_the_teacher_writes_with_its_own_parameters(
    make_llama: Any, tokenizer: Any, kind: Any
) -> None:
    student = ready(make_llama, tokenizer, teacher=kind())
    greedy = TransformersSampler(max_new_tokens=12, temperature=0)
    initial = student.write([PROMPT], sampler=greedy)[0].ids
    with torch.no_grad():
        for parameter in student.student.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    assert student.write([PROMPT], sampler=greedy)[0].ids != initial
    assert student.write([PROMPT], sampler=greedy, teacher=True)[0].ids == initial
    context = ReferenceSolution()
    context.attach(student)
    assert context.write([PROMPT], sampler=greedy)[0].ids != initial
    assert context.write([PROMPT], sampler=greedy, teacher=True)[0].ids == initial


@pytest.mark.usefixtures("one_process")
def test_a_context_writes_with_the_settings_of_its_teacher(make_llama: Any, tokenizer: Any) -> None:
    student = ready(make_llama, tokenizer, template_kwargs={"loud": False})
    asked: list[Any] = []

    def record(messages: Any, template_kwargs: Any = None) -> list[int]:
        asked.append(template_kwargs)
        return [5, 6]

    student.encode = record
    context = ReferenceSolution(template_kwargs={"loud": True})
    context.attach(student)
    for teacher in (True, False):
        context.write([PROMPT], sampler=TransformersSampler(max_new_tokens=1), teacher=teacher)
    assert asked == [{"loud": True}, None]
