"""Tokens to characters to steps."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_sd.metrics.spans import find_step_tokens, split_tokens
from lightning_sd.text.steps import parse_steps

HOSTILE = "<script>alert(1)</script></textarea> \U0001f600\U0001f468‍\U0001f469 שלום ‮abc‬ é\n"


@pytest.mark.parametrize("text", ["<step_1>7+5=2</step_1><answer>2</answer>", HOSTILE, "", "a"])
def test_pieces_join_to_the_decoded_text(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = split_tokens(tokenizer, ids)
    assert pieces.text == text == tokenizer.decode(ids)
    assert len(pieces.texts) == len(pieces.spans) == len(ids)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(max_size=30))
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = split_tokens(tokenizer, ids)
    assert pieces.text == tokenizer.decode(ids)
    assert [end for _, end in pieces.spans] == sorted(end for _, end in pieces.spans)


def test_tokens_of_one_character_share_its_span(tokenizer):
    ids = tokenizer.encode("a\U0001f600b", add_special_tokens=False)
    assert len(ids) == 6  # four bytes between the letters
    pieces = split_tokens(tokenizer, ids)
    assert pieces.spans == ((0, 1), *[(1, 2)] * 4, (2, 3))
    assert pieces.texts == ("a", "", "", "", "\U0001f600", "b")


@pytest.mark.parametrize("end", [[], [1]])
def test_a_completion_that_breaks_off_inside_a_character(tokenizer, end):
    ids = [*tokenizer.encode("a\U0001f600", add_special_tokens=False)[:-1], *end]
    pieces = split_tokens(tokenizer, ids)
    assert pieces.text == tokenizer.decode(ids, skip_special_tokens=True)
    assert len(pieces.texts) == len(ids)


def test_special_tokens_have_a_name_and_no_text(tokenizer):
    ids = [*tokenizer.encode("ab", add_special_tokens=False), tokenizer.eos_token_id]
    pieces = split_tokens(tokenizer, ids)
    assert pieces.names == (None,) * (len(ids) - 1) + ("<|end|>",)
    assert pieces.spans[-1] == (2, 2)


def test_rows_of_broken_bytes_end(tokenizer):
    broken = tokenizer.encode("\U0001f600", add_special_tokens=False)[1]
    pieces = split_tokens(tokenizer, [broken] * 40)
    assert len(pieces.text) >= 30


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        # Steps are characters 0 to 5 and 5 to 12, then two more characters follow.
        ([(0, 5), (5, 12), (12, 14)], ((0, 1), (1, 2))),
        ([(0, 4), (4, 9), (9, 14)], ((0, 1), (1, 3))),  # 1 of 5 in the first; 3 of 5 in the second
        ([(0, 4), (4, 6), (6, 14)], ((0, 2), (2, 3))),  # a tie goes to the earlier step
        ([(0, 14)], ((0, 0), (0, 1))),  # the one token lies mostly in the second
        ([(0, 5), (5, 5), (5, 12)], ((0, 1), (1, 3))),  # a special token stands where it stands
        ([], ((0, 0), (0, 0))),
    ],
)
def test_tokens_that_reach_over_a_boundary_go_where_most_of_them_is(spans, expected):
    assert find_step_tokens(spans, [(0, 5), (5, 12)]) == expected


def test_steps_of_a_real_completion(tokenizer):
    text = "<step_1>7+5=2</step_1>\n<step_2>2*3=6</step_2><answer>6</answer>"
    ids = [*tokenizer.encode(text, add_special_tokens=False), 1]
    pieces = split_tokens(tokenizer, ids)
    found = find_step_tokens(pieces.spans, parse_steps(pieces.text).spans)
    bodies = ["".join(pieces.texts[start:end]) for start, end in found]
    assert [body.strip() for body in bodies] == ["<step_1>7+5=2</step_1>", "<step_2>2*3=6</step_2>"]
