from __future__ import annotations

import pytest

from lightning_sd.lab.recipe.vocabulary import build_tokenizer
from lightning_sd.models.chat import encode_prompt, opens_thinking
from lightning_sd.types import Message

TOKENIZER = build_tokenizer(["so it is"] * 3)


def test_messages_become_plain_ids_up_to_the_assistants_turn() -> None:
    messages: list[Message] = [
        {"role": "system", "content": "so it is"},
        {"role": "user", "content": "7+5"},
    ]
    ids = encode_prompt(TOKENIZER, messages)
    assert type(ids) is list
    assert all(type(token) is int for token in ids)
    assert TOKENIZER.decode(ids) == "<system>so it is<end><user>7+5<end><assistant>"


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="messages is empty"):
        encode_prompt(TOKENIZER, [])


def test_a_prompt_that_ends_with_an_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="'assistant'"):
        encode_prompt(
            TOKENIZER,
            [{"role": "user", "content": "7+5"}, {"role": "assistant", "content": "2"}],
        )


@pytest.mark.parametrize(
    ("end", "opened"),
    [("<think>", True), ("<think>\n", True), ("<think></think>", False), ("think>", False)],
)
def test_a_prompt_that_opens_the_thinking_is_recognized(end: str, opened: bool) -> None:
    ids = encode_prompt(TOKENIZER, [{"role": "user", "content": "<think>"}])
    assert not opens_thinking(TOKENIZER, ids)
    assert opens_thinking(TOKENIZER, [*ids, *TOKENIZER(end).input_ids]) is opened
