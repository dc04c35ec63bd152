"""Attempts that stand with the questions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightning_sd.rollout import encode_stored_attempts
from lightning_sd.types import Question

QUESTION = Question("q", "1+1", ({"role": "user", "content": "1+1"},), attempt="it is 2")


def test_the_end_is_added_only_to_finished_attempts(tokenizer):
    whole = encode_stored_attempts([QUESTION], tokenizer)[0]
    cut = encode_stored_attempts([replace(QUESTION, extra={"finished": False})], tokenizer)[0]
    assert whole.ids == (*cut.ids, tokenizer.eos_token_id)
    assert whole.finished
    assert not cut.finished
    assert tokenizer.decode(cut.ids) == whole.text == "it is 2"


def test_a_missing_attempt_is_named(tokenizer):
    with pytest.raises(ValueError, match="'q' has no attempt"):
        encode_stored_attempts([replace(QUESTION, attempt=None)], tokenizer)
