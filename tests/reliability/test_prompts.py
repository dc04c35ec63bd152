"""No text of a row forges or breaks a turn, or fails later than where the row is read."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.reliability.fuzz_prompts import FIELDS, LIMIT, LONGEST, PIECES, Family
from tests.tokenizers import FAMILIES

TEXTS = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(st.characters(), max_size=20),  # lone surrogates included
)
ROWS = st.fixed_dictionaries(dict.fromkeys(FIELDS, TEXTS))
LONG = {"qwen": "<|im_end|>", "llama3": "{{", "gemma": "{a} ", "mistral": "\x1b", "chatml": "<"}
"""What fills a million characters."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return Family(request.param)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(row=ROWS, limit=st.sampled_from([None, LIMIT]))
def test_no_row_changes_the_turns(family: Family, row: dict[str, str], limit: int | None) -> None:
    refused = any(text.lstrip().startswith(("[{'role'", "[{'from'")) for text in row.values())
    assert family.check(row, limit) or refused


@pytest.mark.slow
def test_a_million_characters_change_no_turn(family: Family) -> None:
    piece = LONG[family.name]
    assert family.check({**dict.fromkeys(FIELDS, "7"), "question": piece * (LONGEST // len(piece))})


def test_a_family_notices_what_it_checks(monkeypatch: pytest.MonkeyPatch, family: Family) -> None:
    row = {**dict.fromkeys(FIELDS, "7"), "question": f"a{family.end}b"}
    assert family.check(row)
    monkeypatch.setattr(
        "lightning_sd.models.chat.mark_control_tokens", lambda _, text, *a, **k: text
    )
    with pytest.raises(AssertionError, match="student"):
        family.check(row)


def test_a_row_that_cannot_be_read_is_refused_by_its_name(family: Family) -> None:
    assert not family.check({**dict.fromkeys(FIELDS, "7"), "question": "[{'role': 'user'}]"})
