from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_sd.text.steps import StepTrace, compare_steps, parse_steps, render_steps

TWO = "<step_1>7+5=2</step_1><step_2>so 2*3 is 6</step_2><answer>6</answer>"
BODIES = st.text(alphabet="0123456789+-*= sonwi\n", min_size=1).filter(lambda s: s.strip() == s)
TAGS = [f"<{close}step_{n}>" for close in ("", "/") for n in (0, 1, 2, 10**8)]
OTHERS = ["<answer>", "</answer>", "<step_", "</", "7+5=2", " ", "\n", "<step_²>", "<step_1 >", "&"]
PIECES = st.sampled_from([*TAGS, *OTHERS])


def trace_of(steps: list[str], answer: str | None = None) -> StepTrace:
    return parse_steps(render_steps(steps, answer))


def test_reads_a_whole_solution_with_its_spans() -> None:
    trace = parse_steps(TWO)
    assert trace.steps == ("7+5=2", "so 2*3 is 6")
    assert trace.answer == "6"
    assert trace.well_formed
    assert not trace.cut_off
    assert [TWO[a:b] for a, b in trace.spans] == [
        "<step_1>7+5=2</step_1>",
        "<step_2>so 2*3 is 6</step_2>",
    ]
    assert trace.answer_span is not None
    assert TWO[slice(*trace.answer_span)] == "<answer>6</answer>"


def test_white_space_around_tags_and_bodies_is_not_a_fault() -> None:
    trace = parse_steps("\n <step_1>\n 7+5=2\t</step_1>\n\n<answer> 2 </answer>\n")
    assert trace.steps == ("7+5=2",)
    assert trace.answer == "2"
    assert trace.well_formed


@pytest.mark.parametrize(
    ("text", "steps", "answer", "cut_off"),
    [
        ("", (), None, False),
        ("no tags at all", (), None, False),
        ("<answer>4</answer>", (), "4", False),  # no steps
        ("<step_1>a</step_1>", ("a",), None, False),  # no answer
        ("<step_1>a</step_1><step_2>b", ("a", "b"), None, True),
        ("<step_1>a</step_1><step_2>", ("a", ""), None, True),
        ("<step_1>a</step_1><answer>4", ("a",), "4", True),
        ("<step_1>a</step_1><answer>", ("a",), None, True),
        ("<step_1>a</step_1><answer>4</ans", ("a",), "4", True),
        ("<step_1>1<2</step", ("1<2",), None, True),
        ("<step_2>a</step_2><answer>4</answer>", ("a",), "4", False),
        ("<step_1>a</step_1><step_3>b</step_3><answer>4</answer>", ("a", "b"), "4", False),
        ("<step_1>a</step_2><answer>4</answer>", ("a",), "4", False),
        ("<step_1>a<step_2>b</step_2><answer>4</answer>", ("a", "b"), "4", False),
        ("<step_1>a</step_1></step_1><answer>4</answer>", ("a",), "4", False),
        ("<step_1>a</step_1> and <answer>4</answer>", ("a",), "4", False),
        ("<step_1>a</step_1><answer>4</answer> done", ("a",), "4", False),
        ("well <step_1>a</step_1><answer>4</answer>", ("a",), "4", False),
        ("<step_1></step_1><answer>4</answer>", ("",), "4", False),
        ("<step_1>a</step_1><answer> </answer>", ("a",), None, False),
        ("<step_1>a</step_1><answer>3</answer><answer>4</answer>", ("a",), "4", False),
        ("<answer>4</answer><step_1>a</step_1>", ("a",), "4", False),
    ],
)
def test_what_breaks_the_form(
    text: str, steps: tuple[str, ...], answer: str | None, cut_off: bool
) -> None:
    trace = parse_steps(text)
    assert not trace.well_formed
    assert (trace.steps, trace.answer, trace.cut_off) == (steps, answer, cut_off)


def test_an_unclosed_step_ends_at_the_next_tag() -> None:
    text = "<step_1>a <step_2>b</step_2>"
    assert [text[a:b] for a, b in parse_steps(text).spans] == ["<step_1>a ", "<step_2>b</step_2>"]


@given(st.lists(BODIES, min_size=1), BODIES)
def test_what_was_rendered_is_read_back(steps: list[str], answer: str) -> None:
    text = render_steps(steps, answer)
    trace = parse_steps(text)
    assert trace.steps == tuple(steps)
    assert trace.answer == answer
    assert trace.well_formed
    assert "".join(text[a:b] for a, b in [*trace.spans, trace.answer_span or (0, 0)]) == text


@settings(max_examples=500)
@given(st.lists(PIECES).map("".join))
def test_garbage_is_read_without_error_and_spans_stay_in_order(text: str) -> None:
    trace = parse_steps(text)
    ends = [0, *(edge for span in trace.spans for edge in span), len(text)]
    assert ends == sorted(ends)
    assert len(trace.spans) == len(trace.steps)
    for body, (start, end) in zip(trace.steps, trace.spans, strict=True):
        assert text[start:end].startswith("<step_")
        assert body in text[start:end]
    if trace.well_formed:
        assert parse_steps(render_steps(trace.steps, trace.answer)).steps == trace.steps
        assert not trace.cut_off


@given(st.integers(0, len(TWO)))
def test_every_cut_keeps_the_steps_before_it(length: int) -> None:
    trace = parse_steps(TWO[:length])
    whole = [s for s in ("7+5=2", "so 2*3 is 6") if TWO.index(s) + len(s) <= length]
    assert list(trace.steps[: len(whole)]) == whole
    assert trace.well_formed == (length == len(TWO))


@pytest.mark.parametrize(
    ("attempt", "repaired", "copied", "changed", "added"),
    [
        (["a", "b"], ["a", "b"], (1, 2), (), ()),
        (["a", "b"], ["a", "c"], (1,), (2,), ()),
        (["a"], ["a", "b", "c"], (1,), (), (2, 3)),
        ([], ["a"], (), (), (1,)),
        (["a", "b", "c"], ["x", "b"], (2,), (1,), ()),  # a step that was dropped is in none
        (["a"], ["a "], (1,), (), ()),
        (["a"], ["A"], (), (1,), ()),
    ],
)
def test_compare(
    attempt: list[str],
    repaired: list[str],
    copied: tuple[int, ...],
    changed: tuple[int, ...],
    added: tuple[int, ...],
) -> None:
    assert compare_steps(trace_of(attempt), trace_of(repaired)) == (copied, changed, added)
