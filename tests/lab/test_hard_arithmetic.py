from __future__ import annotations

import pytest

from lightning_sd.lab import HardArithmeticTask
from lightning_sd.lab.expressions import assign_split, parse_operations
from lightning_sd.lab.recipe.careless_solver import CarelessSolver
from lightning_sd.lab.step_repair import write_reference

RIGHT = "<step_1>7+5=2</step_1><step_2>2*3=6</step_2><answer>6</answer>"
LUCKY = "<step_1>7+5=2</step_1><step_2>2+4=6</step_2><answer>6</answer>"
SHORT = "<step_1>7+5=2</step_1><answer>6</answer>"
WRONG = "<step_1>7+5=3</step_1><step_2>3*3=9</step_2><answer>9</answer>"


@pytest.fixture(scope="module")
def task() -> HardArithmeticTask:
    return HardArithmeticTask(train_size=30, val_size=10, test_size=10)


def test_questions_are_hard_for_the_pupil_and_of_their_split(task: HardArithmeticTask) -> None:
    facts = CarelessSolver.from_seed(0).facts
    for split, size in (("train", 30), ("val", 10), ("test", 10)):
        texts = [question.text for question in task.questions(split)]  # type: ignore[arg-type]
        assert len(set(texts)) == size
        assert {assign_split(text) for text in texts} == {split}
        for text in texts:
            chance = 1.0
            for operation in parse_operations(text):
                chance *= 1 - facts[operation].error_rate
            assert chance <= 0.03


def test_a_larger_task_only_adds_questions(task: HardArithmeticTask) -> None:
    larger = HardArithmeticTask(train_size=40, val_size=10, test_size=10)
    assert larger.questions("train")[:30] == task.questions("train")
    other = HardArithmeticTask(train_size=30, val_size=10, test_size=10, seed=1)
    assert other.questions("train") != task.questions("train")


@pytest.mark.parametrize(
    ("text", "correct", "feedback"),
    [
        (RIGHT, True, None),
        (LUCKY, False, "step 2 is wrong"),
        (SHORT, False, "a step is missing"),
        (WRONG, False, "step 1: 7+5 is 2, not 3"),
        ("", False, "step 1 of 2 is missing"),
    ],
)
def test_an_answer_counts_only_with_its_steps(
    text: str, correct: bool, feedback: str | None
) -> None:
    task = HardArithmeticTask(steps=2, chance=0.5, train_size=1, val_size=1, test_size=1)
    verdict = task.verify(task.question("7+5*3"), text)
    assert (verdict.correct, verdict.reward) == (correct, float(correct))
    assert verdict.feedback == feedback


def test_the_references_notation_is_no_attempts(task: HardArithmeticTask) -> None:
    """Its words are another notation, which the checker of steps does not take for a step."""
    question = task.questions("train")[0]
    assert not task.verify(question, write_reference(question.text)).correct


@pytest.mark.parametrize("chance", [0.0, -1.0, 1.5])
def test_bad_chances_are_named(chance: float) -> None:
    with pytest.raises(ValueError, match=f"chance={chance}"):
        HardArithmeticTask(chance=chance)


def test_a_chance_that_no_question_has_is_named() -> None:
    with pytest.raises(ValueError, match="Raise chance or steps"):
        HardArithmeticTask(chance=1e-9, steps=1, train_size=1, val_size=1, test_size=1)
