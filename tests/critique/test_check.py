import pytest

from lightning_sd.critique.check import check_critique, measure_copied_prefix
from lightning_sd.text.steps import render_steps
from lightning_sd.text.thinking import strip_thinking
from tests.critique.cache.fakes import request

GOOD = render_steps(["1+1=2", "2+1=3"], "3")


@pytest.mark.parametrize(
    ("text", "opened", "rest"),
    [
        ("a", False, "a"),
        ("<think>x</think>a", False, "a"),
        ("<think>x\ny</think>\n a <think>z</think>", False, "a"),
        ("x</think>a", True, "a"),
        ("<think>x</think>a", True, "a"),
        ("x", True, ""),
        ("", True, ""),
        # Not ours to guess what was meant: such text keeps its tag and is refused.
        ("<think>x", False, "<think>x"),
        ("x</think>a", False, "x</think>a"),
        ("x</think>a</think>b", True, "a</think>b"),
    ],
)
def test_thinking_is_stripped(text, opened, rest):
    assert strip_thinking(text, opened=opened) == rest


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        (f"\n{GOOD}\n", None),
        ("", "empty"),
        ("  \n", "empty"),
        ("<think>so", "think"),
        (f"so</think>{GOOD}", "think"),
        ("<step_1>1+1=2</step_1>", "no answer"),
        ("<step_1>1+1=2</step_1><answer></answer>", "no answer"),
        ("The answer is 3.", "no answer"),
        (f"Sure! {GOOD}", "form"),
        ("<answer>3</answer>", "form"),
        ("<step_1>a</step_1><step_3>b</step_3><answer>3</answer>", "form"),
        ("<step_1></step_1><answer>3</answer>", "form"),
        ("<step_1>a</step_1><answer>3", "form"),
        (f"{GOOD}{GOOD}", "form"),
    ],
)
def test_what_is_refused(text, reason):
    refused = check_critique(text, request()).refused
    assert refused is None if reason is None else reason in refused


def test_a_critique_that_was_cut_off_is_refused_whatever_it_looks_like():
    assert "cut off" in check_critique(GOOD, request(), complete=False).refused


@pytest.mark.parametrize(
    ("attempt", "correct", "finished", "critique", "case", "steps"),
    [
        (["1+1=2", "2+1=3"], True, True, ["1+1=2", "2+1=3"], "A", ((1, 2), (), ())),
        (["1+1=2"], True, True, ["1+1=2", "2+1=3"], "B", ((1,), (), (2,))),
        (["1+1=2", "2"], False, False, ["1+1=2", "2+1=3"], "C", ((1,), (2,), ())),
        (["1+1=2", "2+1=4"], False, True, ["1+1=2", "2+1=3", "end"], "D", ((1,), (2,), (3,))),
    ],
)
def test_cases_and_step_maps(attempt, correct, finished, critique, case, steps):
    asked = request(0, render_steps(attempt, "3"), correct, finished)
    found = check_critique(render_steps(critique, "3"), asked, tokens=7, seconds=0.5)
    assert (found.case, found.copied, found.changed, found.added) == (case, *steps)
    assert (found.tokens, found.seconds, found.refused) == (7, 0.5, None)


def test_an_attempt_without_an_answer_is_incomplete():
    assert check_critique(GOOD, request(0, "<step_1>1+1=2</step_1>")).case == "C"


@pytest.mark.parametrize(
    ("attempt", "critique", "share"),
    [
        (["ab", "cdef", "gh"], ["ab", "cdef", "gh"], 1.0),
        (["ab", "cdef", "gh"], ["ab", "cdef", "xx"], 6 / 8),
        (["ab", "cdef", "gh"], ["xx", "cdef", "gh"], 0.0),
        (["ab", "cdef", "gh"], ["ab", "xx", "gh"], 2 / 8),
        (["ab"], ["ab", "cd"], 1.0),
        ([], ["ab"], 0.0),
    ],
)
def test_faithfulness_is_the_share_copied_before_the_first_change(attempt, critique, share):
    assert measure_copied_prefix(render_steps(attempt, "1"), render_steps(critique, "1")) == share
