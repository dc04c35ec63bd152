import threading

import pytest

from lightning_sd.tasks.answers import extract_answer, is_explosive, judge, normalize_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>4</answer>", "4"),
        ("<answer>3</answer> no: <answer> 4\n</answer>", "4"),
        ("<answer>3 <answer>4</answer>", "4"),
        ("<answer>4</answer> then <answer>5", "4"),
        ("<answer>4", None),
        ("</answer>4<answer>", None),
        ("<answer>  </answer>", None),
        (r"\boxed{4}", "4"),
        (r"\boxed{3} and \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3} and \boxed{\frac{1}{2", "3"),
        (r"\boxed{4} <answer>5</answer>", "5"),
        ("four", None),
        ("", None),
    ],
)
def test_extracts_the_last_closed_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("written", ["x + 1", " x  +\n1 ", "$x + 1$", "x + 1.", "$x + 1$."])
def test_normal_form_ignores_what_does_not_change_an_answer(written):
    assert normalize_answer(written) == "x + 1"


@pytest.mark.parametrize(
    ("gold", "answer", "exact", "math"),
    [
        ("7", "7", True, True),
        ("7", "7.", True, True),
        ("7", "8", False, False),
        ("1/2", "0.5", False, True),
        (r"\frac{1}{2}", "1/2", False, True),
        ("x^2+1", "1+x^{2}", False, True),
        ("1,000", "1000", False, True),
        ("2^{10}", "1024", False, True),
        ("7", "nan", False, False),
        ("7", r"\frac{", False, False),
        ("7", "1/0", False, False),
        ("7", "}{", False, False),
        ("9^{9^9}", "9^{9^9}", True, True),
    ],
)
def test_judges(gold, answer, exact, math):
    completion = f"<answer>{answer}</answer>"
    assert judge(gold, completion).correct is exact
    verdict = judge(gold, completion, "math")
    assert verdict.correct is math
    assert verdict.reward == float(math)


def test_a_right_answer_is_reported_in_the_gold_form_so_that_votes_add_up():
    forms = ["1/2", "0.5", r"\frac{1}{2}"]
    votes = {judge("1/2", rf"\boxed{{{form}}}", "math").answer for form in forms}
    assert votes == {"1/2"}


def test_no_answer_is_wrong():
    verdict = judge("7", "It is 7")
    assert (verdict.correct, verdict.reward, verdict.answer) == (False, 0.0, None)


def test_math_works_off_the_main_thread():
    """math-verify's own time limits would make every verdict wrong there."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(judge("1/2", "<answer>0.5</answer>", "math").correct)
    )
    thread.start()
    thread.join()
    assert found == [True]


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
def test_hostile_formulas_are_compared_as_text(formula):
    assert is_explosive(formula)
    assert not judge("5", f"<answer>{formula}</answer>", "math").correct


@pytest.mark.parametrize("formula", ["2^{10}", "x^{2}+3^2", "5!", r"e^{x^2}", "12345", r"\sqrt{2}"])
def test_ordinary_formulas_are_not_hostile(formula):
    assert not is_explosive(formula)


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="judge='maths'"):
        judge("1", "1", "maths")  # type: ignore[arg-type]
