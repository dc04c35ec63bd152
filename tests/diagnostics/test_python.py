"""The functions as a user calls them from Python, without a trainer and without files."""

from __future__ import annotations

from pathlib import Path

import pytest

import lightning_sd
from lightning_sd import LiveTeacher, ReferenceSolution
from tests import stubs


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(Path(tmp_path).iterdir())


@pytest.fixture
def student(tiny_llama, tokenizer):
    return stubs.module(tiny_llama, tokenizer, teacher=LiveTeacher())


def test_probe_needs_no_trainer(student):
    report = lightning_sd.probe(student, stubs.LabData(), ReferenceSolution(), questions=4)
    frame = report.to_frame()
    assert list(frame.columns) == ["label", "value", "low", "high", "number", "questions"]
    assert set(frame.index) == set(report.estimates)
    assert frame.loc["has_teacher", "value"] == 1
    assert frame.loc["student", "number"] == 4 * 4
    assert student.teacher_context is None


def test_analyze_needs_no_trainer_and_no_folder(student):
    contexts = [ReferenceSolution(), stubs.SameAsStudent()]
    report = lightning_sd.analyze(student, stubs.LabData(), contexts, questions=2, samples=2)
    frame = report.to_frame()
    assert set(frame.index.get_level_values("context")) == {"ReferenceSolution", "SameAsStudent"}
    assert frame.loc[("SameAsStudent", "mean_abs"), "value"] == pytest.approx(0, abs=1e-6)
    tokens = report.tokens_to_frame()
    assert len(tokens) == 2 * sum(len(row["tokens"]) for row in report.rows)
    for name, group in tokens.groupby("context"):
        mean = frame.loc[(name, "mean"), "value"]
        assert group["advantage"].mean() == pytest.approx(mean, abs=1e-9)


def test_a_context_replaces_that_of_the_trainer(student, tmp_path):
    trainer = stubs.trainer(tmp_path, stubs.SameAsStudent())
    report = lightning_sd.probe(
        student, stubs.LabData(), ReferenceSolution(), trainer=trainer, questions=2, samples=2
    )
    assert report.context == "ReferenceSolution"
    assert [type(c).__name__ for c in trainer.callbacks if "Same" in type(c).__name__]
    again = lightning_sd.probe(student, stubs.LabData(), trainer=trainer, questions=2, samples=2)
    assert again.context == "SameAsStudent"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "teacher_context=NoneType"),
        ({"samples": 1}, "samples=1"),
        ({"questions": 0}, "questions=0"),
    ],
)
def test_wrong_arguments_are_refused(student, arguments, message):
    with pytest.raises(ValueError, match=message):
        lightning_sd.probe(student, stubs.LabData(), **arguments)
