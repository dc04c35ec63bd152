"""From a data set's rows to questions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lightning_sd.tasks.answers import Judge, extract_answer, judge
from lightning_sd.tasks.instructions import build_prompt
from lightning_sd.types import Question, Verdict

Field = Literal["question", "reference", "answer", "attempt", "finished", "critique", "id"]


@dataclass(frozen=True)
class RowReader:
    """Which column is which part of a question, and how answers are judged.

    Raises:
        ValueError: A field or option that does not exist.
    """

    columns: Mapping[str, str]
    answer_pattern: str | None
    judge: Judge
    instruction: str | None

    def __post_init__(self) -> None:
        if self.judge not in get_args(Judge):
            raise ValueError(f"judge={self.judge!r}: choose one of {get_args(Judge)}.")
        unknown = set(self.columns) - set(get_args(Field))
        if unknown:
            raise ValueError(
                f"columns: there is no field {sorted(unknown)}; choose among {get_args(Field)}."
            )
        if "question" not in self.columns or not {"answer", "reference"} & set(self.columns):
            raise ValueError(
                f"columns={dict(self.columns)}: map `question`, and `answer` or `reference`, "
                "without which no completion can be judged."
            )
        if self.answer_pattern is not None and re.compile(self.answer_pattern).groups != 1:
            raise ValueError(
                f"answer_pattern={self.answer_pattern!r}: it must hold exactly one group, the "
                "answer, as in '#### (.+)'."
            )

    def check_columns(self, existing: Sequence[str], where: str) -> None:
        """Make sure that every mapped column is there.

        Raises:
            ValueError: One is not; the message lists those that are.
        """
        for field, column in self.columns.items():
            if column not in existing:
                raise ValueError(
                    f"columns: {field}: {column!r} is no column of {where}; it has "
                    f"{', '.join(sorted(existing))}."
                )

    def check_answers(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Make sure that some rows have an answer: else every completion would count as wrong.

        Raises:
            ValueError: None has.
        """
        found = [self.build(row, "").answer for row in rows]
        if not any(answer is not None for answer in found):
            column = self.columns.get("answer") or self.columns["reference"]
            raise ValueError(
                f"columns: no answer was found in column {column!r} of the first {len(found)} "
                f"training rows; set answer_pattern (now {self.answer_pattern!r}) or map `answer`."
            )

    def build(self, row: Mapping[str, Any], fallback_id: str) -> Question:
        """Make the question of one row."""
        parts = {field: _text(row[column]) for field, column in self.columns.items()}
        text = parts["question"] or ""
        return Question(
            id=parts.get("id") or fallback_id,
            text=text,
            messages=build_prompt(text, self.instruction),
            reference=parts.get("reference"),
            answer=self._answer(parts),
            attempt=parts.get("attempt"),
            extra={
                field: row[self.columns[field]]
                for field in ("finished", "critique")
                if field in self.columns
            },
        )

    def verify(self, question: Question, completion: str) -> Verdict:
        """Judge the final answer against the row's."""
        if question.answer is None:
            return Verdict(reward=0.0, correct=False, answer=extract_answer(completion))
        return judge(question.answer, completion, self.judge)

    def _answer(self, parts: Mapping[str, str | None]) -> str | None:
        source = parts["answer"] if "answer" in self.columns else parts.get("reference")
        if source is None:
            return None
        if self.answer_pattern is not None:
            found = re.findall(self.answer_pattern, source)
            return found[-1].strip() if found else None
        if "answer" in self.columns:
            return extract_answer(source) or source.strip()
        return extract_answer(source)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
