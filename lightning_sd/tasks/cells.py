"""Read texts, answers and messages from the cells of a row, or refuse them by name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any


class Cell:
    """The value of one column, or of a part of it, with its place for error messages.

    Args:
        value: The value.
        place: Field and column, such as ``columns: answer: 'reward_model.ground_truth'``.
    """

    def __init__(self, value: Any, place: str) -> None:
        self.value = value
        self.place = place

    def read_text(self) -> str | None:
        """Return the value as text; None if it is missing.

        Numbers become their shortest text, and a whole number loses its fraction: 18.0 is read as
        ``18``, because many formats turn a column of integers with a gap into one of floats.

        Raises:
            ValueError: The value is neither a text nor a number.
        """
        value = self.value.item() if hasattr(self.value, "item") else self.value
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
            return _write_number(value, self)
        raise self.refuse(f"{_name_kind(value)}, which is not a text. {_suggest_part(value)}")

    def read_answers(self) -> tuple[str, ...]:
        """Return the accepted answers: those of a list, or a single one; empty if it is missing.

        Raises:
            ValueError: The value or an item of the list is neither a text nor a number.
        """
        if not isinstance(self.value, (list, tuple)):
            text = self.read_text()
            return () if text is None else (text,)
        texts = (Cell(item, self.place).read_text() for item in self.value)
        return tuple(text for text in texts if text is not None)

    def read_flag(self) -> bool:
        """Return the value as a truth value: True, False, 1, 0, or one of these as text.

        Raises:
            ValueError: It is something else.
        """
        value = self.value.item() if hasattr(self.value, "item") else self.value
        flags = {"true": True, "1": True, "false": False, "0": False}
        text = str(value).strip().lower()
        if text not in flags:
            raise self.refuse(f"{value!r:.40}, which is neither true nor false.")
        return flags[text]

    def refuse(self, problem: str) -> ValueError:
        """Return the error that names the place and the problem."""
        return ValueError(f"{self.place} holds {problem}")


def read_cell(row: Mapping[str, Any], field: str, column: str) -> Cell:
    """Return the cell of a column, or of a part such as ``reward_model.ground_truth``.

    The part is found in nested mappings and lists, and in a text that holds JSON.

    Args:
        row: The row.
        field: The question's field, for error messages.
        column: Column name, or the name of a part: keys and list indices behind dots.

    Raises:
        ValueError: There is no such column or part.

    Example:
        >>> row = {"reward_model": {"ground_truth": "7"}, "info": '{"answers": ["a", "b"]}'}
        >>> read_cell(row, "answer", "reward_model.ground_truth").value
        '7'
        >>> read_cell(row, "answer", "info.answers.1").value
        'b'
    """
    name = find_column(row, column)
    if name is None:
        raise ValueError(
            f"columns: {field}: {column!r} is not a column. Choose from {', '.join(sorted(row))}."
        )
    cell = Cell(row[name], f"columns: {field}: {name!r}")
    for part in column[len(name) + 1 :].split(".") if column != name else ():
        cell = Cell(_descend(cell, part), f"{cell.place[:-1]}.{part}'")
    return cell


def find_column(existing: Iterable[str], column: str) -> str | None:
    """Return the existing column that holds a column or part; None if there is none.

    A column that has dots in its own name is preferred to a part.

    Example:
        >>> find_column(["reward_model", "prompt"], "reward_model.ground_truth")
        'reward_model'
    """
    names = set(existing)
    parts = column.split(".")
    heads = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((head for head in heads if head in names), None)


def parse_json(text: str) -> Any:
    """Return the mapping or list that a text holds as JSON; None if it holds something else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _descend(cell: Cell, part: str) -> Any:
    value = parse_json(cell.value) if isinstance(cell.value, str) else cell.value
    if cell.value is None:
        return None
    if isinstance(value, Mapping):
        if part not in value:
            raise cell.refuse(f"no {part!r}. Choose from {', '.join(map(str, value))}.")
        return value[part]
    if isinstance(value, (list, tuple)) and part.isdecimal():
        if int(part) >= len(value):
            raise cell.refuse(f"a list of {len(value)} items, which has no item {part}.")
        return value[int(part)]
    raise cell.refuse(f"{_name_kind(cell.value)}, which has no part {part!r}.")


def _write_number(value: int | float | Decimal, cell: Cell) -> str:
    if not math.isfinite(value):
        raise cell.refuse(f"the number {value}, which is not finite.")
    if isinstance(value, int) or value == int(value):
        return str(int(value))
    return format(value, "f") if isinstance(value, Decimal) else repr(float(value))


def _name_kind(value: Any) -> str:
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(str, value))}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)} items"
    return f"a value of type {type(value).__name__}"


def _suggest_part(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return f"Name one of the keys, as in 'column.{next(iter(value))}'."
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "Name one item, as in 'column.0'."
    return "Convert the column to text."
