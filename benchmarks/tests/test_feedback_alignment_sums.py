"""The real model's task in the alignment study, and the study's configs."""

from __future__ import annotations

import pytest

from benchmarks.feedback_alignment import study
from benchmarks.feedback_alignment.operands import classify_tokens
from benchmarks.feedback_alignment.shown import ShownCritique, ShownReference
from benchmarks.feedback_alignment.sums import SHOTS, RunningSums, format_question, solution
from lightning_sd.cli.main import main
from lightning_sd.types import Rollout

pytest.importorskip("reasoning_gym")
TASK = RunningSums({"train": 30, "val": 10, "test": 10})
QUESTION = next(q for q in TASK.questions("train") if len(set(q.text.split(" + "))) > 2)
RIGHT = solution(QUESTION.text)


def test_questions_are_sums_shown_by_solved_examples_that_are_never_asked():
    splits = [TASK.questions(split) for split in ("train", "val", "test")]
    texts = [question.text for questions in splits for question in questions]
    assert len(set(texts)) == len(texts) == 50
    assert not set(texts) & set(SHOTS)
    for question in splits[0]:
        assert str(sum(map(int, question.text.split(" + ")))) == question.answer
        assert TASK.verify(question, question.reference).correct
        assert question.messages[-1] == {"role": "user", "content": question.text}
        for shot, turn in zip(SHOTS, question.messages[2::2], strict=True):
            assert turn["content"] == solution(shot)


def test_a_repair_copies_what_is_right():
    critique = TASK.repair(QUESTION, RIGHT)
    assert (critique.text, critique.case, critique.copied) == (RIGHT, "A", (1, 2))
    tight = RIGHT.replace(" = ", "=", 1)
    assert TASK.repair(QUESTION, tight).text == tight


@pytest.mark.parametrize(
    ("damage", "case", "copied", "changed", "added"),
    [
        (lambda t: t.replace("</step_1>", "0</step_1>"), "D", (2,), (1,), ()),
        (lambda t: t[: t.index("<step_2>")], "C", (1,), (), (2,)),
        (lambda t: t[: t.index("<step_2>")] + "<answer>1</answer>", "D", (1,), (), (2,)),
        (lambda t: "no idea", "C", (), (), (1, 2)),
        (lambda t: t[: t.index("<answer>")] + "<answer>0</answer>", "D", (1, 2), (), ()),
        (lambda t: t.replace("</answer>", "</answer> and on"), "D", (1, 2), (), ()),
    ],
)
def test_a_repair_changes_what_is_wrong_and_adds_what_is_missing(
    damage, case, copied, changed, added
):
    critique = TASK.repair(QUESTION, damage(RIGHT))
    assert critique.text == RIGHT
    assert critique.case == case
    assert (critique.copied, critique.changed, critique.added) == (copied, changed, added)


def test_steps_too_many_are_left_out():
    attempt = RIGHT.replace("<answer>", "<step_3>1 + 1 = 2</step_3><answer>")
    critique = TASK.repair(QUESTION, attempt)
    assert (critique.text, critique.case) == (RIGHT, "D")


def test_the_expression_is_the_gyms_own():
    raw = super(RunningSums, TASK).questions("val")[0]
    assert format_question(raw).text in raw.text
    assert format_question(raw).id == raw.id


@pytest.mark.parametrize("context", [ShownCritique(), ShownReference()], ids=["own", "reference"])
def test_the_teacher_is_shown_how_the_same_examples_are_read(context):
    attempt = RIGHT.replace(" = ", "=", 1)
    rollout = Rollout(QUESTION, (), attempt, 0, critique=TASK.repair(QUESTION, attempt))
    told = attempt if context.required_evidence else QUESTION.reference
    turns = context.views([rollout])[0].messages
    assert [turn["role"] for turn in turns] == ["system", *["user", "assistant"] * 4, "user"]
    assert turns[0] == QUESTION.messages[0]
    assert turns[-1]["content"] == context.template.format(
        question=QUESTION.text, critique=told, reference=told
    )
    for shot, user, answer in zip(SHOTS, turns[1::2], turns[2::2], strict=False):
        assert user["content"].startswith(f"{shot}\nHere is a ")
        assert answer["content"] == solution(shot)
        # Its context is as right as the answer, and a reference is told in other words.
        assert (answer["content"] in user["content"]) == bool(context.required_evidence)
        assert f"<answer>{sum(map(int, shot.split(' + ')))}</answer>" in user["content"]


def test_digits_that_repeat_are_told_from_those_that_are_new():
    text = "<step_1>9 + 8 = 17</step_1><step_2>17 + 3 = 20</step_2><answer>20</answer>"
    kinds = classify_tokens(text, [*range(1, len(text) + 1), len(text)])
    found = {
        kind: "".join(c for c, k in zip(text, kinds, strict=False) if k == kind) for kind in kinds
    }
    assert found["copied"] == "9817320"
    assert found["sums"] == "1720"
    assert kinds[-1] == "others"


CONFIGS = [(plan, name) for plan in study.PLANS.values() for name in plan.conditions]


@pytest.mark.parametrize(("plan", "name"), CONFIGS, ids=lambda value: str(value)[:20])
def test_every_condition_parses_over_its_config(plan, name, capsys):
    run = study.study_runs(plan, [name], {name: 1e-3})[0]
    words = [w for w in run.commands[0] if not w.startswith("--trainer")]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--print_config"])
    assert stopped.value.code in (0, None)
    printed = capsys.readouterr().out
    assert "lr: 0.001" in printed
    assert f"seed_everything: {run.seed}" in printed
