"""Chat templates: system roles, dates, arguments, and thinking that is already open."""

import pytest

from lightning_sd.models import chat
from lightning_sd.models.chat import encode_prompt
from tests.tokenizers import make_tokenizer

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "What is it?"}


@pytest.mark.parametrize("family", ["gemma", "mistral"])
def test_a_system_message_is_merged_where_the_template_has_no_role_for_it(family):
    """Gemma's template raises an error, Mistral's here drops the message silently."""
    tokenizer = make_tokenizer(family)
    with pytest.warns(UserWarning, match="no system role"):
        text = tokenizer.decode(encode_prompt(tokenizer, [SYSTEM, USER]))
    assert "Be brief.\n\nWhat is it?" in text
    merged = [{"role": "user", "content": "Be brief.\n\nWhat is it?"}]
    assert encode_prompt(tokenizer, [SYSTEM, USER]) == encode_prompt(tokenizer, merged)


@pytest.mark.parametrize("family", ["qwen", "chatml", "llama3"])
def test_a_system_message_stays_where_the_template_takes_it(family):
    tokenizer = make_tokenizer(family)
    text = tokenizer.decode(encode_prompt(tokenizer, [SYSTEM, USER]))
    assert "system" in text
    assert "Be brief.\n\nWhat" not in text


def test_several_turns_after_a_merged_system_message_are_kept():
    tokenizer = make_tokenizer("gemma")
    turns = [SYSTEM, USER, {"role": "assistant", "content": "A cat."}, USER]
    text = tokenizer.decode(encode_prompt(tokenizer, turns))
    assert text.count("What is it?") == 2
    assert text.count("A cat.") == 1


def test_the_date_is_the_sources_and_not_todays():
    tokenizer = make_tokenizer("llama3")
    assert "Today: 01 Jan 2026" in tokenizer.decode(encode_prompt(tokenizer, [USER]))
    tokenizer.template_date = "2027-03-05"
    assert "Today: 05 Mar 2027" in tokenizer.decode(encode_prompt(tokenizer, [USER]))
    own = encode_prompt(tokenizer, [USER], {"date_string": "never"})
    assert "Today: never" in tokenizer.decode(own)
    assert chat.TEMPLATE_DATE == "2026-01-01"


def test_template_arguments_arrive_and_an_opened_thought_is_part_of_the_prompt():
    tokenizer = make_tokenizer("qwen")
    opened = tokenizer.decode(encode_prompt(tokenizer, [USER]))
    closed = tokenizer.decode(encode_prompt(tokenizer, [USER], {"enable_thinking": False}))
    assert opened.endswith("<think>\n")
    assert closed.endswith("<think>\n\n</think>\n\n")


def test_a_template_that_strips_thoughts_from_the_history_does_so():
    tokenizer = make_tokenizer("qwen")
    turns = [USER, {"role": "assistant", "content": "<think>hm</think>\nA cat."}, USER]
    text = tokenizer.decode(encode_prompt(tokenizer, turns))
    assert "hm" not in text
    assert "A cat." in text


def test_a_date_whose_format_is_no_literal_is_named():
    tokenizer = make_tokenizer("llama3")
    tokenizer.chat_template = "{% set f = '%Y' %}{{ strftime_now(f) }}" + tokenizer.chat_template
    with pytest.warns(UserWarning, match="cannot be fixed"):
        encode_prompt(tokenizer, [USER])
