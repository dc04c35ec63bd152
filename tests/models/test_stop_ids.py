"""An answer ends with any of three tokens: the model's, the tokenizer's, and the template's."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_sd.models.stop_ids import find_end_of_turn, find_stop_ids


def model(eos: Any) -> Any:
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=eos))


def make(tokenizer: Any, *, eos: str | None, template: str | None) -> Any:
    other = copy.deepcopy(tokenizer)
    other.eos_token, other.chat_template = eos, template
    return other


TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|system|>{% endfor %}"


@pytest.mark.parametrize(
    ("configured", "eos", "template", "expected"),
    [
        (7, "<|end|>", TEMPLATE, [1, 2, 7]),
        ([9, 7], "<|end|>", None, [1, 7, 9]),
        (None, "<|end|>", None, [1]),
        (None, None, TEMPLATE, [2]),
        (7, None, None, [7]),
    ],
)
def test_each_source_adds_its_token(
    tokenizer: Any, configured: Any, eos: Any, template: Any, expected: list[int]
) -> None:
    found = find_stop_ids(model(configured), make(tokenizer, eos=eos, template=template))
    assert list(found) == expected


def test_without_any_it_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.eos_token"):
        find_stop_ids(model(None), make(tokenizer, eos=None, template=None))


def test_a_text_that_was_not_sampled_ends_as_the_template_ends_it(tokenizer: Any) -> None:
    assert find_end_of_turn(make(tokenizer, eos="<|end|>", template=TEMPLATE)) == 2
    assert find_end_of_turn(make(tokenizer, eos="<|end|>", template=None)) == 1
