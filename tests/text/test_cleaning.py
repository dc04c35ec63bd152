import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sd.text import clean_question, clean_text, clean_value
from lightning_sd.types import Question

ANY = st.text(st.characters(exclude_categories=()))  # lone surrogates included
CONTROLS = [chr(i) for i in [*range(32), 127, *range(128, 160)] if chr(i) not in "\t\n\r"]


@given(ANY)
def test_any_text_can_be_encoded_stored_and_printed(text):
    clean = clean_text(text)
    assert clean.encode().decode() == clean
    assert not set(clean) & set(CONTROLS)
    assert len(clean) == len(text)
    assert clean_text(clean) == clean


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"))))
def test_what_is_clean_stays_the_same(text):
    assert clean_text(text) == text


@pytest.mark.parametrize("character", [*CONTROLS, chr(0xD800), chr(0xDFFF)])
def test_nothing_is_removed_so_no_tag_can_form(character):
    assert clean_text(f"<ans{character}wer>") == "<ans\ufffdwer>"


def test_a_return_alone_cannot_overwrite_a_line():
    assert clean_text("a\rb\r\nc\n") == "a\nb\r\nc\n"


def test_values_are_cleaned_at_any_depth():
    dirty = {"a\0": ["\x1b[2J", 1, None, ("x", "\ud800")], "sound": [0.5, 0.25]}
    assert clean_value(dirty) == {
        "a\ufffd": ["\ufffd[2J", 1, None, ("x", "\ufffd")],
        "sound": [0.5, 0.25],
    }
    plain = {"a": ["b", ("c",)], "n": 3}
    assert clean_value(plain) is plain


def test_every_text_of_a_question_is_cleaned():
    bad = "\x1b"
    dirty = Question(
        bad, bad, ({"role": "user", "content": bad},), bad, bad, bad, {"feedback": [bad]}
    )
    good = "\ufffd"
    message = {"role": "user", "content": good}
    assert clean_question(dirty) == Question(
        good, good, (message,), good, good, good, {"feedback": [good]}
    )
    plain = Question("1", string.printable.strip("\x0b\x0c\r"), (message,))
    assert clean_question(plain) is plain
