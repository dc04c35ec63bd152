"""Build questions from the rows of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from lightning_sd.tasks.cells import Cell, find_column, read_cell
from lightning_sd.tasks.conversations import (
    add_instruction,
    read_messages,
    take_prompt,
    take_reply,
)
from lightning_sd.tasks.instructions import build_prompt
from lightning_sd.tasks.judges.answer import ACCEPTED_ANSWERS
from lightning_sd.tasks.judges.extract import check_formats, extract_answer
from lightning_sd.text.content import render_question
from lightning_sd.types import Question

Field = Literal["question", "reference", "answer", "attempt", "finished", "critique", "id"]
_TEXTS = ("reference", "attempt", "critique")
_OWN_EXTRA = ("finished", "critique", ACCEPTED_ANSWERS)


@dataclass(frozen=True)
class RowReader:
    """Maps the columns of a row to the fields of a question.

    Args:
        columns: Column of each field, or part of a column such as ``reward_model.ground_truth``.
        answer_pattern: Format of the answer in the ``answer`` column, or in the ``reference`` if
            ``answer`` is not mapped. See :func:`~lightning_sd.tasks.judges.extract_answer`. None
            tries the default formats, and takes an ``answer`` without one as a whole.
        instruction: System message.
        extra_columns: Columns to keep in ``Question.extra`` under their own names.
        needs_answer: Whether the judge needs an answer.

    Raises:
        ValueError: A field or option does not exist.
    """

    columns: Mapping[str, str]
    answer_pattern: str | None = None
    instruction: str | None = None
    extra_columns: Sequence[str] = ()
    needs_answer: bool = True

    def __post_init__(self) -> None:
        unknown = sorted(set(self.columns) - set(get_args(Field)))
        if unknown:
            raise ValueError(
                f"columns: {unknown} is no field of a question. Choose from {get_args(Field)}, "
                "and keep other columns with extra_columns."
            )
        if "question" not in self.columns:
            raise ValueError(f"columns={dict(self.columns)}: map `question` to a column.")
        if self.needs_answer and not {"answer", "reference"} & set(self.columns):
            raise ValueError(
                f"columns={dict(self.columns)}: map `answer` or `reference` as well, which the "
                "judge compares completions with."
            )
        reserved = sorted(set(self.extra_columns) & set(_OWN_EXTRA))
        if reserved:
            raise ValueError(f"extra_columns: {reserved} is reserved. Map it in columns.")
        if self.answer_pattern is not None:
            check_formats(self.answer_pattern, "answer_pattern")

    def check_columns(self, existing: Sequence[str], where: str) -> None:
        """Check that every mapped column exists.

        Args:
            existing: The columns of the source.
            where: Name of the source, for the error message.

        Raises:
            ValueError: A column does not exist.
        """
        wanted = [*self.columns.items(), *(("extra_columns", c) for c in self.extra_columns)]
        for field, column in wanted:
            if find_column(existing, column) is None:
                raise ValueError(
                    f"columns: {field}: {column!r} is not a column of {where}. Choose from "
                    f"{', '.join(sorted(existing))}."
                )

    def check_answers(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Check that some rows have an answer, so that a completion can be right.

        Args:
            rows: Some rows of the source.

        Raises:
            ValueError: No row has an answer.
        """
        if not self.needs_answer:
            return
        answers = [self.build(row, "").answer for row in rows]
        if not any(answer is not None for answer in answers):
            column = self.columns.get("answer") or self.columns["reference"]
            raise ValueError(
                f"answer_pattern={self.answer_pattern!r}: no answer was found in column {column!r} "
                f"of the first {len(answers)} training rows. Change the pattern or map `answer`."
            )

    def read_questions(self, table: Any) -> list[str]:
        """Return the question of each row of a ``datasets.Dataset``, with its earlier turns."""
        column = find_column(table.column_names, self.columns["question"]) or ""
        return [render_question(self._read_prompt({column: value})) for value in table[column]]

    def build(self, row: Mapping[str, Any], fallback_id: str) -> Question:
        """Build the question of one row.

        Args:
            row: The row.
            fallback_id: Id of the question if the row has none.

        Returns:
            The question. ``extra["accepted_answers"]`` holds the accepted answers if there are
            several.

        Raises:
            ValueError: A cell cannot be read; the message names the column and the row.
        """
        try:
            return self._build(row, fallback_id)
        except ValueError as error:
            raise ValueError(f"{error} (Row {fallback_id}.)") from None

    def _build(self, row: Mapping[str, Any], fallback_id: str) -> Question:
        cells = {
            field: read_cell(row, field, column)
            for field, column in self.columns.items()
            if field != "question"
        }
        texts = {field: _read_text(cell) for field, cell in cells.items() if field in _TEXTS}
        answers = self._read_answers(cells, texts.get("reference"))
        extra: dict[str, Any] = {column: row[column] for column in self.extra_columns}
        if "finished" in cells:
            extra["finished"] = cells["finished"].read_flag()
        if "critique" in texts:
            extra["critique"] = texts["critique"]
        if len(answers) > 1:
            extra[ACCEPTED_ANSWERS] = answers
        return replace(
            self._read_prompt(row),
            id=(cells["id"].read_text() if "id" in cells else None) or fallback_id,
            reference=texts.get("reference"),
            answer=answers[0] if answers else None,
            attempt=texts.get("attempt"),
            extra=extra,
        )

    def _read_prompt(self, row: Mapping[str, Any]) -> Question:
        """Return a question with its text and messages only."""
        cell = read_cell(row, "question", self.columns["question"])
        messages = read_messages(cell)
        if messages is None:
            text = cell.read_text() or ""
            return Question("", text, build_prompt(text, self.instruction))
        prompt = add_instruction(take_prompt(messages, cell), self.instruction)
        return Question("", prompt[-1]["content"], prompt)

    def _read_answers(self, cells: Mapping[str, Cell], reference: str | None) -> tuple[str, ...]:
        sources: tuple[str | None, ...] = (reference,)
        if "answer" in cells:
            messages = read_messages(cells["answer"])
            sources = (
                cells["answer"].read_answers()
                if messages is None
                else (take_reply(messages, cells["answer"]),)
            )
        answers = (self._extract_answer(source) for source in sources if source is not None)
        return tuple(dict.fromkeys(answer for answer in answers if answer is not None))

    def _extract_answer(self, source: str) -> str | None:
        if self.answer_pattern is not None:
            return extract_answer(source, [self.answer_pattern])
        answer = extract_answer(source)
        return answer or source.strip() if "answer" in self.columns else answer


def _read_text(cell: Cell) -> str | None:
    """Return a text cell, or the last reply of a cell with messages."""
    messages = read_messages(cell)
    return cell.read_text() if messages is None else take_reply(messages, cell)
