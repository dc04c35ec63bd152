"""Which steps are wrong, by the task's rules and by the critique."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_sd import ArithmeticTask
from lightning_sd.lab.step_repair import find_wrong_step
from lightning_sd.metrics.wrong_steps import find_first_wrong_token, find_steps, list_wrong_steps
from lightning_sd.types import Critique, Rollout

TASK = ArithmeticTask(train_size=1, val_size=1, test_size=1)
QUESTION = TASK.question("7+5*3")
RIGHT = "<step_1>7+5=2</step_1><step_2>2*3=6</step_2><answer>6</answer>"


def rollout(tokenizer, text, critique=None, question=QUESTION):
    ids = (*tokenizer.encode(text, add_special_tokens=False), 1)
    return Rollout(question, ids, text, 0, critique=critique)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (RIGHT, ()),
        (RIGHT.replace("=6", "=7"), (2,)),
        (RIGHT.replace("=2<", "=3<").replace("2*3=6", "3*3=9"), (1, 2)),
        ("<step_1>7+5=2</step_1>", ()),  # no answer yet
        ("<step_1>7+5=2</step_1><step_2>2*", ()),  # breaks off inside a right step
        ("<step_1>7+5=3</step_1><step_2>2*", (1, 2)),
        (
            "<step_1>7+5=2</step_1><step_2>2*3=6</step_2><step_3>6+1=7</step_3><answer>7</answer>",
            (3,),
        ),
        ("no steps at all", ()),
        ("", ()),
    ],
)
def test_the_tasks_rules(tokenizer, text, wrong):
    found = find_steps(rollout(tokenizer, text), tokenizer, TASK)
    assert found.wrong == wrong
    assert found.source == "task"
    first = find_wrong_step(QUESTION.text, text)
    if wrong:
        assert first == wrong[0] - 1
        start = find_first_wrong_token(found.tokens, found.wrong)
        assert "".join(found.pieces.texts[start:]).startswith(f"<step_{wrong[0]}>")


def test_the_critique_speaks_where_the_task_has_no_rules(tokenizer):
    critique = Critique("...", "D", copied=(1,), changed=(2,))
    judged = rollout(tokenizer, RIGHT, critique)
    assert find_steps(judged, tokenizer).wrong == (2,)
    assert find_steps(judged, tokenizer).source == "critique"
    # The task's own rules know better.
    assert find_steps(judged, tokenizer, TASK).wrong == ()


@pytest.mark.parametrize("critique", [None, Critique("", "D", refused="it is empty")])
def test_nobody_knows(tokenizer, critique):
    found = find_steps(rollout(tokenizer, RIGHT, critique), tokenizer)
    assert (found.wrong, found.source) == ((), None)


@pytest.mark.parametrize(
    ("case", "cut_off", "expected"),
    [
        ("A", False, ()),
        ("B", False, ()),
        ("C", True, (2,)),
        ("C", False, (2, 3)),
        ("D", True, (2, 3)),
    ],
)
def test_cases(case, cut_off, expected):
    critique = Critique("...", case, copied=(1,), changed=(2, 3))
    assert list_wrong_steps(critique, 3, cut_off=cut_off) == expected


def test_other_questions_have_other_errors(tokenizer):
    other = replace(QUESTION, text="7+5*4")
    found = find_steps(rollout(tokenizer, RIGHT, question=other), tokenizer, TASK)
    assert found.wrong == (2,)
