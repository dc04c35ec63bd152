from __future__ import annotations

import threading
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_sd.tasks.judges.answer import AnswerJudge, AnswerMethod, are_equal
from lightning_sd.tasks.judges.compare import canonicalize_answer, normalize_answer, parse_number
from lightning_sd.tasks.judges.formulas import is_expensive
from lightning_sd.tasks.judges.process import JudgeLimits
from lightning_sd.types import Verdict


@pytest.fixture(scope="module")
def judges():
    return {method: AnswerJudge(method) for method in ("number", "exact", "math")}


def judge_one(judge: AnswerJudge, gold: str | None, completion: str) -> Verdict:
    return judge.judge_answers([gold], [completion])[0]


@pytest.mark.parametrize(
    "written", ["x + 1", " x  +\n1 ", "$x + 1$", "x + 1.", "$x + 1$.", "$x + 1.$"]
)
def test_normal_form_ignores_what_does_not_change_an_answer(written: str) -> None:
    assert normalize_answer(written) == "x + 1"


@pytest.mark.parametrize(
    ("gold", "answer", "exact", "number", "math"),
    [
        ("7", "7", True, True, True),
        ("7", "7.", True, True, True),
        ("7", "8", False, False, False),
        ("18", "18.0", False, True, True),
        ("18.0", "18", False, True, True),
        ("1800", "$1,800", False, True, True),
        ("1,800", "1800.00", False, True, True),
        ("1800", "1,80,0", False, False, False),
        ("0.5", ".5", False, True, True),
        ("-3", "\N{MINUS SIGN}3", False, True, True),
        ("B", "(B)", False, True, True),
        ("1/2", "0.5", False, False, True),
        (r"\frac{1}{2}", "1/2", False, False, True),
        ("x^2+1", "1+x^{2}", False, False, True),
        ("2^{10}", "1024", False, False, True),
        ("7", "nan", False, False, False),
        ("7", r"\frac{", False, False, False),
        ("7", "1/0", False, False, False),
        ("7", "}{", False, False, False),
        ("9^{9^9}", "9^{9^9}", True, True, True),
    ],
)
def test_methods(judges, gold, answer, exact, number, math) -> None:
    completion = f"<answer>{answer}</answer>"
    for method, correct in {"exact": exact, "number": number, "math": math}.items():
        verdict = judge_one(judges[method], gold, completion)
        assert (verdict.correct, verdict.reward) == (correct, float(correct)), method
        assert verdict.status == "judged"


def test_a_right_answer_is_reported_in_the_gold_form_so_that_votes_add_up(judges) -> None:
    forms = ["1/2", "0.5", r"\frac{1}{2}"]
    completions = [rf"\boxed{{{form}}}" for form in forms]
    verdicts = judges["math"].judge_answers(["1/2"] * 3, completions)
    assert {verdict.answer for verdict in verdicts} == {"1/2"}


def test_wrong_numbers_are_reported_in_one_form(judges) -> None:
    forms = ["1,800", "1800.0", "$1800"]
    completions = [f"<answer>{form}</answer>" for form in forms]
    verdicts = judges["number"].judge_answers(["7"] * 3, completions)
    assert {verdict.answer for verdict in verdicts} == {"1800"}


@pytest.mark.parametrize("method", ["number", "exact", "math"])
def test_no_answer_is_counted(judges, method: AnswerMethod) -> None:
    for completion in ("It is 7", r"<think>maybe \boxed{7}"):
        verdict = judge_one(judges[method], "7", completion)
        assert (verdict.correct, verdict.reward, verdict.answer) == (False, 0.0, None)
        assert verdict.status == "no_answer"


def test_without_a_right_answer_nothing_is_right(judges) -> None:
    verdict = judge_one(judges["number"], None, "<answer>7</answer>")
    assert (verdict.correct, verdict.answer, verdict.status) == (False, "7", "judged")


def test_math_works_off_the_main_thread(judges) -> None:
    verdicts = []
    thread = threading.Thread(
        target=lambda: verdicts.append(judge_one(judges["math"], "1/2", "<answer>0.5</answer>"))
    )
    thread.start()
    thread.join()
    assert [verdict.correct for verdict in verdicts] == [True]


def test_a_formula_that_never_ends_is_ended_and_the_others_are_judged() -> None:
    judge = AnswerJudge("math", limits=JudgeLimits(seconds=8))
    completions = [r"\boxed{0.5}", r"\boxed{(x+y+z)^{99}}", r"\boxed{0.5}", r"\boxed{3}"]
    start = time.monotonic()
    verdicts = judge.judge_answers(["1/2"] * 4, completions)
    assert [v.status for v in verdicts] == ["judged", "timed_out", "judged", "judged"]
    assert [v.correct for v in verdicts] == [True, False, True, False]
    assert verdicts[1].reason is not None
    assert time.monotonic() - start < 120
    judge.close()


def test_cheap_methods_start_no_process(judges, monkeypatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a process was started"))
    for method in ("number", "exact"):
        judge = AnswerJudge(method)
        assert judge_one(judge, "7", "<answer>7</answer>").correct
    assert judge_one(AnswerJudge("math"), "7", "<answer>7.0</answer>").correct


def test_a_regular_expression_that_backtracks_for_ever_is_ended() -> None:
    judge = AnswerJudge(completion_pattern=r"((?:a+)+)$", limits=JudgeLimits(seconds=3))
    verdicts = judge.judge_answers(["aa", "aa"], ["a" * 60 + "b", "aa"])
    assert [verdict.status for verdict in verdicts] == ["timed_out", "judged"]
    assert verdicts[1].correct
    judge.close()


@pytest.mark.parametrize(
    "formula",
    [
        "9^{9^{9}}",
        "9**9**9",
        "9^(9^9)",
        "10^{100000000}",
        "(10^{10})!",
        "5000!",
        "3!!",
        "(x+1)^{10000}",
        "(2^{99})^{99}",
        r"\binom{1000000000}{500000000}",
        r"\sum_{i=1}^{9} 9^i",
        "1+" * 200,
    ],
)
def test_expensive_formulas_are_compared_as_text(judges, formula: str) -> None:
    assert is_expensive(formula)
    assert not judge_one(judges["math"], "5", f"<answer>{formula}</answer>").correct


@pytest.mark.parametrize("formula", ["2^{10}", "x^{2}+3^2", "5!", r"e^{x^2}", "12345", r"\sqrt{2}"])
def test_ordinary_formulas_are_not_expensive(formula: str) -> None:
    assert not is_expensive(formula)


def test_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="judge='maths'"):
        AnswerJudge("maths")  # type: ignore[arg-type]


@settings(max_examples=1000, deadline=None)
@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9
    )
)
def test_numbers_are_equal_in_every_notation(number: Decimal) -> None:
    forms = [str(number), f"{number:,}", f"${number}", f" {number}00. ", f"{number:E}"]
    assert {canonicalize_answer(form) for form in forms} == {canonicalize_answer(str(number))}
    assert all(are_equal(forms[0], form) for form in forms)
    assert not are_equal(str(number), str(number + Decimal("0.001")))


@settings(max_examples=1000, deadline=None)
@given(st.text())
def test_any_text_is_normalized_once(text: str) -> None:
    normal = canonicalize_answer(text)
    assert canonicalize_answer(normal) == normal
    assert parse_number(normal) is None or are_equal(normal, text)
