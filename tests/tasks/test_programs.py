from __future__ import annotations

import sys

import pytest

from lightning_sd.lab import ArithmeticTask
from lightning_sd.lab.explain import explain_attempt
from lightning_sd.tasks import ProgramTask
from lightning_sd.tasks.programs import _FAMILIES, read_program

linux = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


@pytest.fixture(scope="module")
def task():
    return ProgramTask(train_size=60, val_size=20, test_size=20)


def test_splits_share_no_question_whatever_the_seed(task):
    other = ProgramTask(train_size=60, val_size=20, test_size=20, seed=5)
    texts = {
        s: {q.text for t in (task, other) for q in t.questions(s)} for s in ("train", "val", "test")
    }
    assert not texts["train"] & texts["val"]
    assert not texts["train"] & texts["test"]
    assert not texts["val"] & texts["test"]
    assert [q.id for q in task.questions("train")] != [q.id for q in other.questions("train")]
    again = ProgramTask(train_size=60, val_size=20, test_size=20)
    assert again.questions("train") == task.questions("train")


@linux
@pytest.mark.parametrize("family", _FAMILIES)
def test_the_reference_of_every_family_is_right(family):
    few = ProgramTask(train_size=5, val_size=2, test_size=2, families=[family])
    for question in few.questions("train"):
        verdict = few.verify(question, question.reference)
        assert verdict.reward == 1
        assert verdict.feedback is None
        assert len(verdict.answer.split("; ")) == 8


@linux
def test_feedback_is_what_the_interpreter_says():
    clamp = ProgramTask(train_size=2, val_size=1, test_size=1, families=["clamp"], seconds=0.3)
    question = clamp.questions("train")[0]
    (first,), wanted = question.extra["tests"][0]
    said = {
        "def f(x):\n    return None": f"f({first}) returned None, not {wanted}",
        "def f(x):\n    return x +": "SyntaxError: invalid syntax (line 2)",
        "def f(x):\n    return y": f"f({first}): NameError: name 'y' is not defined (line 2)",
        "def f(x):\n    while True: pass": f"f({first}): no result within 0.3 s",
        "def g(x): return x": "NameError: there is no function f",
        "  ": "there is no program",
    }
    for program, feedback in said.items():
        verdict = clamp.verify(question, f"Here:\n```python\n{program}\n```")
        assert (verdict.reward, verdict.correct, verdict.feedback) == (0.0, False, feedback)
    # The right answers do not leave the trainer's process.
    spy = "import sys\ndef f(x): return sorted(sys._getframe(1).f_locals['job'])"
    assert "'tests'" not in clamp.verify(question, spy).answer


def test_programs_are_read_out_of_the_last_block():
    assert read_program("a\n```py\nx\n```\nb\n```\ny\n``` c") == "y\n"
    assert read_program("```python\ncut off") == "cut off"
    assert read_program("def f(): pass") == "def f(): pass"
    assert read_program(" \n") is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_size": 0}, "train_size=0"),
        ({"tests": 0}, "tests=0"),
        ({"families": ["sonnets"]}, "sonnets"),
        ({"families": ["multiples"], "train_size": 500}, "train_size=500"),
        ({"seconds": 0.0}, "seconds=0.0"),
    ],
)
def test_bad_settings_name_themselves(settings, words):
    with pytest.raises(ValueError, match=words):
        ProgramTask(**settings)


def step(number, body):
    return f"<step_{number}>{body}</step_{number}>"


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (step(1, "7+5=2") + step(2, "2*3=7") + "<answer>7</answer>", "step 2: 2*3 is 6, not 7"),
        (step(1, "so 7+5 is 2") + step(2, "2*4=8"), "step 2: the next operation is 2*3, not 2*4"),
        (step(1, "seven"), "step 1: it is no equation"),
        (step(1, "7+5=2"), "step 2 of 2 is missing"),
        ("", "step 1 of 2 is missing"),
        (step(1, "7+5=2") + step(2, "2*3=6"), "there is no answer"),
        (
            step(1, "7+5=2") + step(2, "2*3=6") + "<answer>5</answer>",
            "the answer 5 is not what the last step gives",
        ),
        (
            step(1, "7+5=2") + step(2, "2*3=6") + step(3, "6+1=7") + "<answer>7</answer>",
            "step 3: the expression has only 2 operations",
        ),
        ("<answer>6</answer>", None),
    ],
)
def test_the_lab_task_says_where_an_attempt_goes_wrong(attempt, words):
    assert explain_attempt("7+5*3", attempt) == words
    for explain in (True, False):
        task = ArithmeticTask(steps=2, train_size=1, val_size=1, test_size=1, explain=explain)
        verdict = task.verify(task.question("7+5*3"), attempt)
        assert verdict.feedback == (words if explain else None)
