"""The teacher guard lets the teacher answer, and compares rewards."""

from __future__ import annotations

import pytest

from lightning_sd import (
    CollapseError,
    NoContext,
    PolicyGradient,
    PretrainedModel,
    ReferenceSolution,
    StepAlignedCritique,
    TeacherGuard,
    TransformersSampler,
)
from tests.stubs import LabData, equal, module, trainer, weights


def train_solver(folder, *guards):
    model, tokenizer = PretrainedModel("package:lightning_sd/lab/solver").load()
    student = module(model, tokenizer, sampler=TransformersSampler(max_new_tokens=64), samples=4)
    run = trainer(folder, StepAlignedCritique(), *guards)
    run.fit(student, datamodule=LabData())
    return student, run


def test_a_teacher_that_knows_more_is_left_alone(tmp_path):
    guard = TeacherGuard(every_n_steps=1, action="stop")
    student, run = train_solver(tmp_path, guard)
    assert guard.start > 0.2
    last = run.callback_metrics["guard/teacher_gain"]
    assert guard.start == pytest.approx((guard._recent[0][1] + float(last)) / 2)
    # The measurement changes nothing.
    plain, _ = train_solver(tmp_path)
    assert equal(weights(student), weights(plain))


def test_a_teacher_that_answers_no_better_is_seen(make_llama, tokenizer, tmp_path):
    """A random model answers nothing right, with or without a reference solution."""
    guard = TeacherGuard(every_n_steps=2, window=1, action="stop")
    with pytest.raises(CollapseError, match="over steps 2 to 2, guard/teacher_gain is 0, at most"):
        trainer(tmp_path, ReferenceSolution(), guard, max_steps=3).fit(
            module(make_llama(), tokenizer), datamodule=LabData()
        )


def test_a_run_without_a_teacher_is_refused(make_llama, tokenizer, tmp_path):
    student = module(make_llama(), tokenizer, objective=PolicyGradient())
    with pytest.raises(ValueError, match="this run has no teacher"):
        trainer(tmp_path, NoContext(), TeacherGuard()).fit(student, datamodule=LabData())


def test_the_interval_is_checked():
    with pytest.raises(ValueError, match="every_n_steps=0"):
        TeacherGuard(every_n_steps=0)
