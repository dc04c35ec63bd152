"""Build questions from the rows of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_sd.tasks.instructions import build_prompt
from lightning_sd.tasks.judges.extract import check_formats, extract_answer
from lightning_sd.types import Question

Field = Literal["question", "reference", "answer", "attempt", "finished", "critique", "id"]
_OWN_EXTRA = ("finished", "critique")


@dataclass(frozen=True)
class RowReader:
    """Maps the columns of a row to the fields of a question.

    Args:
        columns: Column of each field.
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
            if column not in existing:
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

    def build(self, row: Mapping[str, Any], fallback_id: str) -> Question:
        """Build the question of one row.

        Args:
            row: The row.
            fallback_id: Id of the question if the row has none.

        Returns:
            The question.

        Raises:
            ValueError: A text column holds a list or another object.
        """
        texts = {
            field: _read_text(row[column], field, column)
            for field, column in self.columns.items()
            if field not in _OWN_EXTRA
        }
        text = texts["question"] or ""
        extra = {f: row[self.columns[f]] for f in _OWN_EXTRA if f in self.columns}
        return Question(
            id=texts.get("id") or fallback_id,
            text=text,
            messages=build_prompt(text, self.instruction),
            reference=texts.get("reference"),
            answer=self._read_answer(texts),
            attempt=texts.get("attempt"),
            extra=extra | {column: row[column] for column in self.extra_columns},
        )

    def _read_answer(self, texts: Mapping[str, str | None]) -> str | None:
        source = texts["answer"] if "answer" in self.columns else texts.get("reference")
        if source is None:
            return None
        if self.answer_pattern is not None:
            return extract_answer(source, [self.answer_pattern])
        answer = extract_answer(source)
        return answer or source.strip() if "answer" in self.columns else answer


def _read_text(value: Any, field: str, column: str) -> str | None:
    """Return a cell as text. A whole number that a column stores as 18.0 is written as 18."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(
        f"columns: {field}: column {column!r} holds {value!r:.80}, which is neither a text nor a "
        "number. Convert the column to text."
    )
