from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sd.lab.arithmetic import DEFAULT_INSTRUCTION, ArithmeticTask
from lightning_sd.lab.expressions import assign_split, draw_questions, parse_operations
from lightning_sd.lab.recipe.careless_solver import CarelessSolver
from lightning_sd.lab.step_notation import NOTATIONS
from lightning_sd.lab.step_repair import find_wrong_step, write_reference
from lightning_sd.tasks.base import RepairTask, Task
from lightning_sd.text.steps import compare_steps, parse_steps, render_steps

TEXT = "7+5*3-4*6"  # 7+5=2, 2*3=6, 6-4=2, 2*6=2
RIGHT = ["so 7+5 is 2", "2*3=6", "then 6-4=2", "now 2*6 is 2"]
PLAIN = ["7+5=2", "2*3=6", "6-4=2", "2*6=2"]
SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def task() -> ArithmeticTask:
    return ArithmeticTask(train_size=300, val_size=60, test_size=60)


def by_hand(text: str) -> int:
    value = int(text[0])
    for i in range(1, len(text), 2):
        other = int(text[i + 1])
        if text[i] == "+":
            value += other
        elif text[i] == "-":
            value -= other
        else:
            value *= other
        value %= 10
    return value


def test_is_a_step_checked_task(task: ArithmeticTask) -> None:
    assert isinstance(task, Task)
    assert isinstance(task, RepairTask)


def test_questions_answers_and_references_agree(task: ArithmeticTask) -> None:
    for split in SPLITS:
        for question in task.questions(split):
            assert len(question.text) == 9
            assert question.messages == ({"role": "user", "content": question.text},)
            assert question.answer == str(by_hand(question.text))
            assert question.reference is not None
            assert task.verify(question, question.reference).correct
            assert parse_steps(question.reference).well_formed


def test_splits_are_disjoint_whatever_the_seed_and_the_length() -> None:
    seen: dict[str, str] = {}
    for seed in (0, 1):
        for steps in (2, 4):
            task = ArithmeticTask(
                steps=steps, train_size=500, val_size=200, test_size=200, seed=seed
            )
            for split in SPLITS:
                ids = [question.id for question in task.questions(split)]
                assert len(set(ids)) == len(ids)
                for text in (question.text for question in task.questions(split)):
                    assert seen.setdefault(text, split) == split
                    assert assign_split(text) == split
    pretrain = draw_questions("pretrain", 3000, steps=4, seed=0)
    assert not set(pretrain) & set(seen)


def test_another_seed_draws_other_questions_and_a_larger_size_adds_to_them() -> None:
    small, large, other = (
        draw_questions("val", size, steps=4, seed=seed)
        for size, seed in ((50, 0), (80, 0), (50, 1))
    )
    assert large[:50] == small
    assert len(set(small) & set(other)) < 5


def test_questions_are_the_same_in_a_process_with_another_hash_seed() -> None:
    code = (
        "from lightning_sd.lab.expressions import draw_questions as d;"
        "print(*d('test', 20, steps=4, seed=3), hash('a'))"
    )
    *found, hashed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert int(hashed) != hash("a")
    assert found == draw_questions("test", 20, steps=4, seed=3)


def test_shares_of_the_splits() -> None:
    rng = random.Random(0)
    texts = [f"{rng.randrange(10)}+{rng.randrange(10)}*{rng.randrange(10**6)}" for _ in range(8000)]
    found = [assign_split(text) for text in texts]
    shares = {split: found.count(split) / len(found) for split in found}
    assert shares == pytest.approx(
        {"pretrain": 0.5, "train": 0.25, "val": 0.1, "test": 0.15}, abs=0.02
    )


@pytest.mark.parametrize("name", ["steps", "train_size", "val_size", "test_size"])
def test_settings_below_one_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0"):
        ArithmeticTask(**{name: 0})


def test_more_questions_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train_size=2000 .* at most 37"):
        ArithmeticTask(steps=1)


def test_an_unknown_split_is_refused(task: ArithmeticTask) -> None:
    with pytest.raises(ValueError, match="pretrain"):
        task.questions("pretrain")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "7", "7+", "+7", "7+5*", "17+5", "7 + 5", "7/5", "7+5\n"])
def test_what_is_no_question_is_refused(task: ArithmeticTask, text: str) -> None:
    with pytest.raises(ValueError, match="not a question of the arithmetic task"):
        task.question(text)


def test_the_instruction_comes_first_and_its_example_is_right() -> None:
    task = ArithmeticTask(train_size=1, val_size=1, test_size=1, instruction=DEFAULT_INSTRUCTION)
    question = task.questions("train")[0]
    assert [m["role"] for m in question.messages] == ["system", "user"]
    assert question.messages[0]["content"] == DEFAULT_INSTRUCTION
    example = DEFAULT_INSTRUCTION[DEFAULT_INSTRUCTION.index("<step_1>") :]
    assert "7+5*3-4" in DEFAULT_INSTRUCTION
    assert task.repair(task.question("7+5*3-4"), example).case == "A"
    assert task.verify(task.question("7+5*3-4"), example).correct


@pytest.mark.parametrize(
    ("completion", "correct", "answer"),
    [
        ("<answer>2</answer>", True, "2"),
        ("<answer> 2. </answer>", True, "2"),
        ("<answer>2", True, "2"),
        ("<step_1>nonsense</step_1><answer>2</answer>", True, "2"),
        ("<answer>3</answer><answer>2</answer>", True, "2"),
        ("<answer>12</answer>", False, "12"),
        ("<answer>two</answer>", False, "two"),
        ("<answer></answer>", False, None),
        ("2", False, None),
        ("", False, None),
    ],
)
def test_verify(task: ArithmeticTask, completion: str, correct: bool, answer: str | None) -> None:
    verdict = task.verify(task.question(TEXT), completion)
    assert (verdict.reward, verdict.correct, verdict.answer) == (float(correct), correct, answer)


def test_the_reference_is_in_no_notation_of_the_solver() -> None:
    reference = write_reference(TEXT)
    assert parse_steps(reference).steps[0] == "get 2 from 7+5"
    assert find_wrong_step(TEXT, reference) == 0
    solver_words = {word for n in NOTATIONS for word in (n.lead + n.equals).split()}
    assert not solver_words & set(parse_steps(reference).steps[0].split())


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        (RIGHT, None),
        (["7+5=2.", "2 * 3 = 6", "First, 6-4=2", "2*6 is 2"], None),
        ([], None),
        (RIGHT[:2], None),
        (["7+5=3", *RIGHT[1:]], 0),  # result
        (["7+5=12", *RIGHT[1:]], 0),
        (["8+5=3", *RIGHT[1:]], 0),  # start
        (["7-5=2", *RIGHT[1:]], 0),  # operator
        (["7+4=1", *RIGHT[1:]], 0),  # operand
        (["5+7=2", *RIGHT[1:]], 0),  # order
        (["7+5", *RIGHT[1:]], 0),
        (["7+5=2 and 2*3=6", *RIGHT[1:]], 0),
        ([RIGHT[0], "2*3=7", "7-4=3", "3*6=8"], 1),
        ([RIGHT[0], RIGHT[1], "7-4=3", "3*6=8"], 2),  # does not start from the last result
        ([*RIGHT, "2+2=4"], 4),
    ],
)
def test_first_wrong_step(steps: list[str], wrong: int | None) -> None:
    assert find_wrong_step(TEXT, render_steps(steps, "2")) == wrong


@pytest.mark.parametrize(
    ("attempt", "case", "steps", "copied", "changed", "added"),
    [
        pytest.param(render_steps(RIGHT, "2"), "A", RIGHT, (1, 2, 3, 4), (), (), id="right"),
        pytest.param(
            render_steps(RIGHT[:3], "2"),
            "B",
            [*RIGHT[:3], "then 2*6=2"],
            (1, 2, 3),
            (),
            (4,),
            id="last step missing",
        ),
        pytest.param(
            render_steps([RIGHT[0], RIGHT[3]], "2"),
            "B",
            [RIGHT[0], "so 2*3 is 6", "so 6-4 is 2", RIGHT[3]],
            (1, 2),
            (),
            (2, 3),
            id="middle steps missing",
        ),
        pytest.param(
            "<answer>2</answer>",
            "B",
            PLAIN,
            (),
            (),
            (1, 2, 3, 4),
            id="answer alone",
        ),
        pytest.param(
            render_steps(RIGHT[:2], None) + "<step_3>then 6-",
            "C",
            [*RIGHT[:2], "6-4=2", "2*6=2"],
            (1, 2),
            (3,),
            (4,),
            id="cut off in a step",
        ),
        pytest.param(
            render_steps(RIGHT[:2], None),
            "C",
            [*RIGHT[:2], "6-4=2", "2*6=2"],
            (1, 2),
            (),
            (3, 4),
            id="cut off after one",
        ),
        pytest.param(
            render_steps(RIGHT, None) + "<answer>", "C", RIGHT, (1, 2, 3, 4), (), (), id="no answer"
        ),
        pytest.param("", "C", PLAIN, (), (), (1, 2, 3, 4), id="nothing"),
        pytest.param(
            render_steps([RIGHT[0], "then 2*3 is 5", "5-4=1", "now 1*6=6"], "6"),
            "D",
            [RIGHT[0], "then 2*3 is 6", "6-4=2", "now 2*6=2"],
            (1,),
            (2, 3, 4),
            (),
            id="wrong result",
        ),
        pytest.param(
            render_steps([RIGHT[0], "2 * 3 = 5"], None) + "<step_3>5",
            "D",
            [RIGHT[0], "2 * 3 = 6", "6 - 4 = 2", "2 * 6 = 2"],
            (1,),
            (2, 3),
            (4,),
            id="wrong and cut off",
        ),
        pytest.param(
            render_steps([RIGHT[0], "2*3=5", "5-4=1", RIGHT[3]], "2"),
            "D",
            [RIGHT[0], "2*3=6", "6-4=2", RIGHT[3]],
            (1, 4),
            (2, 3),
            (),
            id="wrong, back on the way by luck",
        ),
        pytest.param(
            render_steps(RIGHT, "3"), "D", RIGHT, (1, 2, 3, 4), (), (), id="wrong answer only"
        ),
        pytest.param(
            render_steps([*RIGHT, "2+2=4"], "4"),
            "D",
            RIGHT,
            (1, 2, 3, 4),
            (),
            (),
            id="a step too many",
        ),
        pytest.param(
            render_steps(RIGHT, "2") + " done", "D", RIGHT, (1, 2, 3, 4), (), (), id="form broken"
        ),
        pytest.param(
            render_steps(["who knows", "then 2*3 is 5"], "5"),
            "D",
            ["7+5=2", "then 2*3 is 6", "then 6-4 is 2", "then 2*6 is 2"],
            (),
            (1, 2),
            (3, 4),
            id="no notation to go by",
        ),
    ],
)
def test_repair(
    task: ArithmeticTask,
    attempt: str,
    case: str,
    steps: list[str],
    copied: tuple[int, ...],
    changed: tuple[int, ...],
    added: tuple[int, ...],
) -> None:
    critique = task.repair(task.question(TEXT), attempt)
    assert critique.case == case
    assert (critique.copied, critique.changed, critique.added) == (copied, changed, added)
    repaired = parse_steps(critique.text)
    assert repaired.well_formed
    assert repaired.answer == "2"
    assert list(repaired.steps) == steps
    assert critique.refused is None


def test_a_right_attempt_is_copied_to_the_letter(task: ArithmeticTask) -> None:
    attempt = render_steps(RIGHT, "2").replace("</step_1>", "</step_1>\n ")
    assert task.repair(task.question(TEXT), attempt).text == attempt


@given(st.integers(0, 10**6), st.sampled_from(draw_questions("train", 50, steps=4, seed=0)))
def test_repair_of_a_pupils_attempt(seed: int, text: str) -> None:
    """Against a repair done the slow way: rewrite the digits of each step in place."""
    task = ArithmeticTask(train_size=1, val_size=1, test_size=1)
    attempt = PUPIL.attempt(text, random.Random(seed))
    expected = []
    for body, operation in zip(parse_steps(attempt).steps, parse_operations(text), strict=True):
        digits = [i for i, letter in enumerate(body) if letter.isdigit()]
        letters = list(body)
        letters[digits[0]], letters[digits[2]] = str(operation.left), str(operation.result)
        expected.append("".join(letters))
    critique = task.repair(task.question(text), attempt)
    assert critique.text == render_steps(expected, str(by_hand(text)))
    trace, repaired = parse_steps(attempt), parse_steps(critique.text)
    assert (critique.copied, critique.changed, critique.added) == compare_steps(trace, repaired)
    assert critique.case == ("A" if critique.text == attempt else "D")
    wrong = find_wrong_step(text, attempt)
    assert (min(critique.changed, default=None) or 0) == (0 if wrong is None else wrong + 1)
    again = task.repair(task.question(text), critique.text)
    assert (again.case, again.text) == ("A", critique.text)


PUPIL = CarelessSolver.from_seed(0)


def test_the_pupil_goes_on_from_its_own_results_in_every_notation() -> None:
    rng = random.Random(0)
    bodies = set()
    for text in draw_questions("pretrain", 300, steps=4, seed=0):
        trace = parse_steps(PUPIL.attempt(text, rng))
        assert trace.well_formed
        value = text[0]
        for body, operator, right in zip(trace.steps, text[1::2], text[2::2], strict=True):
            bodies.add("".join("#" if letter in "0123456789+-*" else letter for letter in body))
            assert f"{value}{operator}{right}" in body
            value = body[-1]
        assert trace.answer == value
    assert len(bodies) == len(NOTATIONS) == 8


def test_the_pupils_slips_are_fixed_and_near_the_truth() -> None:
    assert CarelessSolver.from_seed(0) == PUPIL
    assert CarelessSolver.from_seed(1) != PUPIL
    assert len(PUPIL.facts) == 300
    for operation, fact in PUPIL.facts.items():
        assert (fact.wrong_result - operation.result) % 10 in (1, 2, 8, 9)
    assert 0.15 < sum(fact.error_rate for fact in PUPIL.facts.values()) / 300 < 0.25
