"""What RCSD's teachers see, when analyses are written, and batches with nothing to learn from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_sd import Distillation, FrozenTeacher, LiveTeacher, TransformersSampler
from lightning_sd.contexts import ReferenceRubric, RubricConditioned
from lightning_sd.contexts.rubrics import Rubric
from lightning_sd.contexts.rubrics.guard import LeakGuard
from lightning_sd.contexts.rubrics.sources import RandomRubric
from lightning_sd.lab import CreatureTask
from lightning_sd.models.fingerprint import fingerprint_module
from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.tasks import RubricWritingTask
from lightning_sd.types import Rollout, Verdict
from tests.stubs import LabData, equal, module, trainer, weights

TASK = CreatureTask(train_size=4, val_size=1, test_size=1)
QUESTIONS = TASK.questions("train")
TEMPLATE = "Q {question} A {reference} R {rubric} {request}"
RCSD = Distillation(top_k=20, support="teacher", tail=False, element_clip=0.05, temperature=1.2)


class Host:
    """Writes "analysis 1", "analysis 2", ... and says which weights were asked for."""

    def __init__(self, tokenizer, model, teacher=None):
        self.tokenizer, self.teacher_context, self.student = tokenizer, None, model
        self.teacher = teacher or LiveTeacher()
        self.teacher.setup(model)
        self.asked, self.counted = [], {}

    def frozen_teacher_fingerprint(self):
        if not self.teacher.writes_frozen:
            return None
        with self.teacher.swap_in(self.student):
            return fingerprint_module(self.student)

    def write(self, prompts, *, sampler, teacher, template_kwargs=None):
        self.asked += [(prompt, teacher) for prompt in prompts]
        start = len(self.asked) - len(prompts)
        texts = [f"<think>x</think> analysis {start + i}" for i in range(len(prompts))]
        ids = [tuple(self.tokenizer(text).input_ids) for text in texts]
        return [Completion(i, row, (0.0,) * len(row), True) for i, row in enumerate(ids)]

    def log_mean(self, name, total, number):
        self.counted[name] = (total, number)


def rollouts(*numbers, text="It sings."):
    return [
        Rollout(QUESTIONS[n], (5, 6), text, group=n, verdict=Verdict(0.0, False)) for n in numbers
    ]


def hosted(tokenizer, model, teacher=None, **kwargs):
    context = RubricConditioned(template=TEMPLATE, analyze="THINK", answer="ANSWER", **kwargs)
    context._host = Host(tokenizer, model, teacher)
    return context, context._host


def first_turn(n, request):
    rubric = Rubric.from_list(QUESTIONS[n].extra["rubric"]).render()
    return f"Q {QUESTIONS[n].text} A {QUESTIONS[n].reference} R {rubric} {request}"


def test_without_reasoning_one_turn(tokenizer, tiny_llama):
    context, host = hosted(tokenizer, tiny_llama, reason_first=False)
    assert context.prepare_batch(rollouts(0, 1)) == rollouts(0, 1)
    view = context.views(rollouts(0, 1))[1]
    assert view.messages == ({"role": "user", "content": first_turn(1, "ANSWER")},)
    assert host.asked == []


def test_reason_first_shows_the_analysis_as_the_models_own_turn(tokenizer, tiny_llama):
    context, host = hosted(tokenizer, tiny_llama)
    batch = rollouts(0, 0, 1)
    context.prepare_batch(batch)
    views = context.views(batch)
    # One analysis a question, by the student, from the request alone.
    assert [prompt for prompt, _ in host.asked] == [
        ({"role": "user", "content": first_turn(n, "THINK")},) for n in (0, 1)
    ]
    assert not any(teacher for _, teacher in host.asked)
    assert views[0].messages == (
        {"role": "user", "content": first_turn(0, "THINK")},
        {"role": "assistant", "content": "analysis 0"},
        {"role": "user", "content": "ANSWER"},
    )
    assert views[1] == views[0]
    assert views[2].messages[1]["content"] == "analysis 1"
    # The weights have changed: the next step asks again.
    context.prepare_batch(batch)
    assert context.views(batch)[0].messages[1]["content"] == "analysis 2"


def test_braces_in_a_rubric_and_an_analysis_are_left_alone(tokenizer, tiny_llama):
    context, _ = hosted(tokenizer, tiny_llama)
    context.prepare_batch(rollouts(0))
    context._analyses = {QUESTIONS[0].id: "{rubric} {"}
    assert context.views(rollouts(0))[0].messages[1]["content"] == "{rubric} {"


@pytest.mark.parametrize("kept", [True, False])
def test_a_frozen_teacher_writes_each_analysis_once(tokenizer, make_llama, tmp_path, kept):
    path = str(tmp_path / "analyses.jsonl") if kept else None
    options = {"writer": "teacher", "analyses": path}
    context, host = hosted(tokenizer, make_llama(), FrozenTeacher(), **options)
    context.prepare_batch(rollouts(0, 1))
    context.prepare_batch(rollouts(1, 2))
    assert len(host.asked) == 3
    assert all(teacher for _, teacher in host.asked)
    shown = [view.messages[1] for view in context.views(rollouts(1, 2))]
    # A resumed run has them from the checkpoint, another run from the file.
    resumed, again = hosted(tokenizer, make_llama(), FrozenTeacher(), writer="teacher")
    resumed.load_state_dict(context.state_dict())
    other, host = hosted(tokenizer, make_llama(), FrozenTeacher(), **options)
    for one in (resumed, other):
        one.prepare_batch(rollouts(1, 2))
    assert [view.messages[1] for view in resumed.views(rollouts(1, 2))] == shown
    assert again.asked == []
    assert len(host.asked) == (0 if kept else 2)
    # Other weights, another sampler or another rubric: another analysis.
    changed, host = hosted(tokenizer, make_llama(seed=1), FrozenTeacher(), **options)
    changed.prepare_batch(rollouts(1))
    assert len(host.asked) == 1
    changed, host = hosted(
        tokenizer, make_llama(), FrozenTeacher(), sampler=TransformersSampler(7), **options
    )
    changed.prepare_batch(rollouts(1))
    assert len(host.asked) == 1
    changed, host = hosted(
        tokenizer, make_llama(), FrozenTeacher(), rubrics=RandomRubric(), **options
    )
    changed.prepare_batch(rollouts(1, 2))
    assert len(host.asked) == 2


def test_a_teacher_that_moves_writes_anew(tokenizer, make_llama):
    context, host = hosted(tokenizer, make_llama(), LiveTeacher(), writer="teacher")
    context.prepare_batch(rollouts(0))
    context.prepare_batch(rollouts(0))
    assert len(host.asked) == 2
    assert context.state_dict() == {"analyses": {}}


def test_guard_counts_and_masks(tokenizer, tiny_llama):
    batch = [*rollouts(0), *rollouts(1, text="As the rubric says, it sings."), *rollouts(2)]
    for mask in (False, True):
        context, host = hosted(tokenizer, tiny_llama, guard=LeakGuard(mask=mask))
        context.prepare_batch(batch)
        assert host.counted == {"leaks": (1, 3)}
        seen = [view is not None for view in context.views(batch)]
        assert seen == [True, not mask, True]


def test_too_long_a_prompt_loses_analysis_then_reference_then_rubric(tokenizer, tiny_llama):
    context, _ = hosted(tokenizer, tiny_llama)
    context.prepare_batch(rollouts(0))
    whole = context.views(rollouts(0))[0]
    from lightning_sd.models.chat import encode_prompt

    length = len(encode_prompt(tokenizer, whole.messages))
    cuts = []
    for limit in (length - 2, length - 40, length - 120):
        context.max_prompt_tokens = limit
        view = context.views(rollouts(0))[0]
        assert len(encode_prompt(tokenizer, view.messages)) <= limit
        cuts.append(set(view.cut))
    assert cuts[0] == {"analysis"}
    assert cuts[1] == {"analysis", "reference"}
    assert cuts[2] == {"analysis", "reference", "rubric"}
    context.max_prompt_tokens = 30
    assert context.views(rollouts(0)) == [None]


def test_questions_without_rubric_have_no_teacher_and_no_analysis(tokenizer, tiny_llama):
    bare = replace(QUESTIONS[0], extra={})
    batch = [replace(rollouts(0)[0], question=bare)]
    context, host = hosted(tokenizer, tiny_llama)
    context.prepare_batch(batch)
    assert context.views(batch) == [None]
    assert host.asked == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"writer": "critic"}, "writer='critic'"),
        ({"template": "{question} {request}"}, "{rubric}"),
        ({"template": "{question} {rubric}"}, "{request}"),
        ({"analyses": "x.jsonl"}, "frozen teacher"),
        ({"analyses": "x.jsonl", "writer": "teacher", "reason_first": False}, "frozen teacher"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        RubricConditioned(**options)


def test_reference_rubric_shows_the_target_behind_the_students_prompt():
    question = RubricWritingTask(TASK).questions("train")[0]
    rollout = Rollout(question, (1,), "[", 0)
    [view] = ReferenceRubric().views([rollout])
    content = view.messages[-1]["content"]
    assert content.startswith(question.text)
    assert question.reference in content[len(question.text) :]
    bare = replace(rollout, question=replace(question, extra={}))
    assert ReferenceRubric().views([bare]) == [None]


class RubricData(LabData):
    """The rubric task; nothing is judged."""

    def __init__(self, questions, **kwargs):
        super().__init__(**kwargs)
        self.given = questions

    def evidence(self, rollouts, needs):
        return [replace(rollout, verdict=Verdict(0.0, False)) for rollout in rollouts]

    def questions(self, split):
        return list(self.given)


class Fixed(Sampler):
    """Writes the same text to each prompt."""

    temperature = 1.2

    def __init__(self, ids):
        self.ids = tuple(ids)

    def sample(self, model, prompts, *, samples, stop_ids, generator):
        logprobs = (-1.0,) * len(self.ids)
        numbers = (n for n in range(len(prompts)) for _ in range(samples))
        return [Completion(n, self.ids, logprobs, finished=True) for n in numbers]


CITING = "As the rubric says."


@pytest.mark.parametrize(
    ("said", "bare", "mask", "silent"),
    [
        ("", False, False, True),
        ("<|end|>", False, False, False),
        (CITING, False, True, True),
        (CITING, False, False, False),
        ("It sings.", True, False, True),
    ],
    ids=["no token", "only the end", "all masked", "counted only", "no rubric"],
)
@pytest.mark.parametrize("reason_first", [True, False])
def test_degenerate_batches(
    make_llama, tokenizer, tmp_path, said, bare, mask, silent, reason_first
):
    questions = [replace(q, extra={}) if bare else q for q in QUESTIONS]
    model = make_llama(max_position_embeddings=2048)
    before = weights(model)
    sampler = Fixed(tokenizer(said, add_special_tokens=False).input_ids)
    student = module(model, tokenizer, objective=RCSD, sampler=sampler, samples=1)
    context = RubricConditioned(
        reason_first=reason_first,
        sampler=TransformersSampler(max_new_tokens=4),
        guard=LeakGuard(mask=mask),
        template=TEMPLATE,
    )
    run = trainer(tmp_path, context, max_steps=1)
    run.fit(student, datamodule=RubricData(questions))
    found, after = run.callback_metrics, weights(student.student)
    assert found["train/silent"] == float(silent)
    assert found["train/leaks"] == float(said == CITING)
    assert all(torch.isfinite(value).all() for value in after.values())
    assert equal(before, after) == silent


@pytest.mark.parametrize("writer", ["student", "teacher"])
def test_it_trains_on_its_own_samples_with_its_own_analyses(
    make_llama, tokenizer, tmp_path, writer
):
    student = module(make_llama(max_position_embeddings=2048), tokenizer, objective=RCSD)
    context = RubricConditioned(
        writer=writer, sampler=TransformersSampler(max_new_tokens=4), template=TEMPLATE
    )
    run = trainer(tmp_path, context, max_steps=2)
    run.fit(student, datamodule=RubricData(QUESTIONS))
    assert run.callback_metrics["train/loss"].isfinite()
    assert run.callback_metrics["train/has_teacher"] == 1.0
    assert 0 <= run.callback_metrics["train/leaks"] <= 1
