import datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sd.tasks.cells import Cell, find_column, read_cell
from lightning_sd.tasks.conversations import (
    add_instruction,
    read_messages,
    take_prompt,
    take_reply,
)
from lightning_sd.tasks.layouts import LAYOUTS, recognize_layout

USER = {"role": "user", "content": "1+1?"}
ASSISTANT = {"role": "assistant", "content": "2"}
SYSTEM = {"role": "system", "content": "Be brief."}


def cell(value):
    return Cell(value, "columns: answer: 'a'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("18.0", "18.0"),
        (" a ", " a "),
        (18, "18"),
        (18.0, "18"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (1e-7, "1e-07"),
        (1e16, "10000000000000000"),
        (Decimal("1.50"), "1.50"),
        (Decimal("1800"), "1800"),
        (np.float64(18.0), "18"),
        (np.int64(7), "7"),
        (float("nan"), None),
        (None, None),
        (2**70, str(2**70)),
    ],
)
def test_texts_and_numbers_are_read(value, text):
    assert cell(value).read_text() == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], r"'a' holds a list of 2 items.*'column\.0'"),
        ({"value": "7", "aliases": []}, r"the keys value, aliases.*'column\.value'"),
        (True, "a truth value"),
        (b"7", "of type bytes"),
        (datetime.date(2026, 1, 1), "of type date"),
        (float("inf"), "not finite"),
        ([USER], "a list of 1 items"),
    ],
)
def test_what_is_no_text_is_refused_by_name(value, message):
    with pytest.raises(ValueError, match=message):
        cell(value).read_text()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(JSON)
def test_no_value_becomes_its_python_repr(value):
    try:
        text = cell(value).read_text()
    except ValueError:
        return
    assert isinstance(value, (str, int, float, type(None)))
    assert not isinstance(value, bool)
    if isinstance(value, float) and text is not None:
        assert float(text) == value


def test_lists_are_accepted_answers():
    assert cell(["7", 7.0, None]).read_answers() == ("7", "7")
    assert cell("7").read_answers() == ("7",)
    assert cell(None).read_answers() == cell([]).read_answers() == ()
    with pytest.raises(ValueError, match="the keys a"):
        cell([{"a": 1}]).read_answers()


@pytest.mark.parametrize(
    ("value", "flag"), [(True, True), (0, False), ("False", False), ("true", True), (1.0, None)]
)
def test_flags(value, flag):
    if flag is None:
        with pytest.raises(ValueError, match="neither true nor false"):
            cell(value).read_flag()
    else:
        assert cell(value).read_flag() is flag


ROW = {
    "reward_model": {"ground_truth": "7", "style": "rule"},
    "info": '{"answers": ["a", {"b": 3}]}',
    "a.b": "dotted",
    "text": "plain",
    "none": None,
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", "plain"),
        ("reward_model.ground_truth", "7"),
        ("info.answers.1.b", 3),
        ("a.b", "dotted"),
        ("none.a.b", None),
    ],
)
def test_parts_of_columns_are_found(column, value):
    assert read_cell(ROW, "answer", column).value == value


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("solution", r"'solution' is not a column.*info, none"),
        ("reward_model.truth", r"'reward_model' holds no 'truth'. Choose from ground_truth, style"),
        ("info.answers.7", r"'info\.answers' holds a list of 2 items, which has no item 7"),
        ("text.a", r"'text' holds a text, which has no part 'a'"),
    ],
)
def test_missing_parts_are_named(column, message):
    with pytest.raises(ValueError, match=message):
        read_cell(ROW, "answer", column)


@pytest.mark.parametrize(
    "value",
    [
        [SYSTEM, USER, ASSISTANT],
        '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}, '
        '{"role": "assistant", "content": "2"}]',
        {"role": ["system", "user", "assistant"], "content": ["Be brief.", "1+1?", "2"]},
        [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "1+1?"},
            {"from": "gpt", "value": "2"},
        ],
        [
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "1+1?", "tool_calls": None},
            ASSISTANT,
        ],
    ],
)
def test_all_forms_of_messages_are_read(value):
    messages = read_messages(cell(value))
    assert messages == (SYSTEM, USER, ASSISTANT)
    assert take_prompt(messages, cell(value)) == (SYSTEM, USER)
    assert take_reply(messages, cell(value)) == "2"


@pytest.mark.parametrize("value", ["1+1?", "[1, 2]", ["a"], [], None, 7, {"a": 1}, '[{"a": 1}]'])
def test_other_values_hold_no_messages(value):
    assert read_messages(cell(value)) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (str([USER]), "the Python repr of messages"),
        ([{"role": "tool", "content": "7"}], "the role 'tool'"),
        ([{**ASSISTANT, "tool_calls": [{"id": 1}]}], "tool calls"),
        ([{"role": "user", "content": [{"type": "image"}]}], "part of type image"),
        ([{"role": "user", "content": 7}], "content of type int"),
    ],
)
def test_messages_that_cannot_be_read_are_refused_by_name(value, message):
    with pytest.raises(ValueError, match=message):
        read_messages(cell(value))


def test_turns_that_are_missing_are_named():
    with pytest.raises(ValueError, match="without a user turn"):
        take_prompt((SYSTEM, ASSISTANT), cell(""))
    with pytest.raises(ValueError, match="end with the turn of 'user'"):
        take_reply((USER,), cell(""))


def test_the_instruction_joins_the_system_turn():
    assert add_instruction((USER,), None) == (USER,)
    joined = add_instruction((SYSTEM, USER), "Use steps.")
    assert joined == ({"role": "system", "content": "Be brief.\n\nUse steps."}, USER)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognized_by_its_own_columns(name):
    columns = {find_column(["reward_model"], c) or c for c in LAYOUTS[name].values()}
    assert recognize_layout([*columns, "id", "source"], "x") == LAYOUTS[name]


def test_an_unknown_layout_lists_its_columns():
    with pytest.raises(ValueError, match=r"my\.jsonl with the columns label, text"):
        recognize_layout(["text", "label"], "my.jsonl")
