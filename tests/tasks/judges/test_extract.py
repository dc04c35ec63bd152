from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_sd.tasks.judges.extract import (
    DEFAULT_FORMATS,
    check_formats,
    extract_answer,
    remove_thinking,
)
from lightning_sd.text.steps import parse_steps

FORMATS = ("answer_tag", "boxed", "gsm8k", "answer_is", "last_number", "choice")
PIECES = (
    *(
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        r"\boxed{",
        r"\boxed  {",
        "{",
        "}",
        r"\frac{",
    ),
    *(
        "####",
        "\n",
        " ",
        "answer is",
        "Answer:",
        "option",
        "(A)",
        "B",
        "7",
        "1,800",
        "-",
        "3.5",
        ".",
    ),
    *("<step_1>", "</step_1>", "<step_", "</", "<|im_end|>", "\x00", "\x1b[2J", "\ud800", "é"),
)


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
        (r"<answer> </answer>\boxed{4}", "4"),
        (r"\boxed{4}", "4"),
        (r"\boxed{3} and \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3} and \boxed{\frac{1}{2", "3"),
        (r"\boxed{\boxed{4}}", "4"),
        (r"} \boxed {4}", "4"),
        (r"\boxed{4} <answer>5</answer>", "5"),
        ("so 3+4\n#### 7\n", "7"),
        ("####", None),
        ("four", None),
        ("It is 7.", None),
        ("", None),
    ],
)
def test_the_last_closed_answer_is_extracted(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>maybe \boxed{7}", None),
        (r"<think>maybe \boxed{7}</think>", None),
        (r"first <think>maybe \boxed{7}", None),
        (r"maybe \boxed{7}</think> no", None),
        (r"a</think>\boxed{6} <think>b</think> or \boxed{7}", "7"),
        (r"<think>\boxed{6}</think><answer>7</answer>", "7"),
        (r"\boxed{5} <think>\boxed{6}</think> done", "5"),
        (r"<think><answer>6</answer></think>7", None),
    ],
)
def test_an_answer_inside_thinking_is_no_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("answer_is", "The answer is 7.", "7"),
        ("answer_is", "The answer is 3.5 m. Thanks.", "3.5 m"),
        ("answer_is", "answer is 3\n**Final Answer:** 4", "4"),
        ("answer_is", "The answer is: **7**.\nGoodbye", "7"),
        ("answer_is", "No idea", None),
        ("last_number", "5-3 is 2, so x=-2.5!", "-2.5"),
        ("last_number", "5-3", "3"),
        ("last_number", "It costs $1,800.", "1,800"),
        ("last_number", "none", None),
        ("choice", "The answer is (B).", "B"),
        ("choice", "Answer: C", "C"),
        ("choice", "I think so.\n**D**", "D"),
        ("choice", r"\boxed{\text{D}}", "D"),
        ("choice", "<answer>B) 42</answer>", "B"),
        ("choice", "Bananas are good", None),
        ("result = (.+)", "result = 7", "7"),
    ],
)
def test_named_formats(name: str, text: str, answer: str | None) -> None:
    assert extract_answer(text, [name]) == answer


def test_formats_are_tried_in_order() -> None:
    text = r"\boxed{3}. The answer is 4."
    assert extract_answer(text, ["answer_is", "boxed"]) == "4"
    assert extract_answer(text, ["boxed", "answer_is"]) == "3"


@pytest.mark.parametrize("value", ["boxd", "####", "(a)(b)", "(", []])
def test_unknown_formats_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="completion_pattern="):
        check_formats(value, "completion_pattern")


texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=40).map("".join)


@settings(max_examples=3000, deadline=None)
@given(texts, st.sampled_from(FORMATS))
def test_any_text_is_read(text: str, name: str) -> None:
    answer = extract_answer(text, [name])
    assert answer is None or (answer == answer.strip() != "" and answer in remove_thinking(text))


@settings(max_examples=2000, deadline=None)
@given(texts)
def test_nothing_of_the_thinking_is_extracted(text: str) -> None:
    rest = remove_thinking(text)
    assert "<think>" not in rest
    assert "</think>" not in rest
    assert extract_answer(f"<think>{text}") == extract_answer(text.partition("</think>")[2])
    answer = extract_answer(text)
    assert answer is None or answer in rest


@settings(max_examples=2000, deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="<>{}\\#"), min_size=1), texts)
def test_a_plain_answer_after_any_text_is_found(answer: str, text: str) -> None:
    wanted = answer.strip() or None
    closed = f"{text}</think><answer>{answer}</answer>"
    assert wanted is None or extract_answer(closed) == wanted


@settings(max_examples=2000, deadline=None)
@given(texts)
def test_any_text_has_a_step_trace(text: str) -> None:
    trace = parse_steps(text)
    assert len(trace.spans) == len(trace.steps)
    ends = [0, *(end for _, end in trace.spans)]
    assert all(end <= start for end, (start, _) in zip(ends, trace.spans, strict=False))
    assert all(text[start:end].startswith("<step_") for start, end in trace.spans)


@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear(piece: str) -> None:
    """A quadratic reader takes minutes: 28 kB of open boxes took one 12 s."""
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    for name in FORMATS:
        extract_answer(text, [name])
    extract_answer(text, DEFAULT_FORMATS)
    parse_steps(text)
    assert time.process_time() - start < 10
