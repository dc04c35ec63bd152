"""Select the questions to train on: hard for the solver, solved by the critic, in step form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning_sd.tasks.judges.answer import AnswerJudge, AnswerMethod
from lightning_sd.text.steps import parse_steps

KEPT_COLUMNS = (
    "id",
    "question",
    "reference",
    "gold",
    "attempt",
    "finished",
    "correct",
    "critique",
    "refused",
)


@dataclass(frozen=True)
class Bounds:
    """Bounds that a kept question must meet. Defaults follow arXiv 2606.11173 where it has numbers.

    Raises:
        ValueError: A bound is outside 0 to 1.
    """

    max_solver: float = 0.3125
    """The solver's share of correct attempts must be below this (5 of 16)."""
    min_critic: float = 0.5
    """At least this share of the critiques must be usable and end in the right answer."""
    min_form: float = 0.8
    """At least this share of the attempts must be in step form."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must be a share between 0 and 1.")


@dataclass(frozen=True)
class QuestionScore:
    """Shares over the attempts at one question."""

    id: str
    attempts: int
    solver: float
    """Share of correct attempts (Avg@k)."""
    critic: float
    """Share of attempts with a usable critique that ends in the right answer."""
    form: float
    """Share of attempts in step form."""

    def list_missed(self, bounds: Bounds) -> list[str]:
        """Return the names of the bounds that the question misses. A kept question misses none."""
        missed = {
            "max_solver": self.solver >= bounds.max_solver,
            "min_critic": self.critic < bounds.min_critic,
            "min_form": self.form < bounds.min_form,
        }
        return [name for name, miss in missed.items() if miss]


@dataclass(frozen=True)
class FilterReport:
    """The result of filtering."""

    questions: int
    """Number of questions read."""
    kept: int
    """Number of questions kept."""
    missed: Mapping[str, int]
    """Questions that missed each bound. One question may miss several bounds."""
    before: Mapping[str, float]
    """Means over all questions of ``solver``, ``critic`` and ``form``."""
    after: Mapping[str, float]
    """Means over the kept questions."""


def filter_attempts(
    source: str | Path,
    out: str | Path,
    bounds: Bounds | None = None,
    *,
    judge_method: AnswerMethod = "number",
) -> FilterReport:
    """Write the attempts at the kept questions as a data set with a card.

    Args:
        source: JSON lines file with several attempts per question and their critiques, as written
            by ``critique`` or ``predict``.
        out: Folder for ``train.jsonl`` and ``README.md``.
        bounds: Bounds that a kept question must meet.
        judge_method: How the answers of critiques are compared with ``gold``.

    Returns:
        The report, which the card also holds.

    Raises:
        ValueError: A line lacks a column, or no question is kept.
    """
    bounds = bounds or Bounds()
    scores = score_questions(read_rows(source), judge_method)
    kept = {score.id for score in scores if not score.list_missed(bounds)}
    report = _summarize(scores, kept, bounds)
    if not kept:
        raise ValueError(
            f"bounds={bounds}: no question of {source} meets them. Of {report.questions}, "
            f"{dict(report.missed)} missed each bound. Widen the bounds."
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as stream:
        for row in read_rows(source):
            if row["id"] in kept:
                plain = {name: row[name] for name in KEPT_COLUMNS}
                stream.write(json.dumps(plain, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(_write_card(report, bounds, Path(source)), encoding="utf-8")
    return report


def score_questions(
    rows: Iterable[Mapping[str, Any]], judge_method: AnswerMethod = "number"
) -> list[QuestionScore]:
    """Compute the shares of each question, in the order of first appearance."""
    judge = AnswerJudge(judge_method)
    marks_by_question: dict[str, list[tuple[bool, bool, bool]]] = {}
    for row in rows:
        critique = row["critique"] if row["refused"] is None else None
        marks_by_question.setdefault(row["id"], []).append(
            (
                bool(row["correct"]),
                critique is not None and _is_right(judge, row["gold"], critique),
                parse_steps(row["attempt"]).well_formed,
            )
        )
    return [
        QuestionScore(name, len(marks), *(fmean(column) for column in zip(*marks, strict=True)))
        for name, marks in marks_by_question.items()
    ]


def _is_right(judge: AnswerJudge, gold: str, critique: str) -> bool:
    return judge.judge_answers([gold], [critique])[0].correct


def read_rows(source: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON lines file of attempts.

    Raises:
        ValueError: A line lacks a column.
    """
    with Path(source).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            row = json.loads(line)
            missing = sorted(set(KEPT_COLUMNS) - row.keys())
            if missing:
                raise ValueError(
                    f"{source}, line {number}: the columns {missing} are missing. Write the file "
                    "with `critique` or `predict`."
                )
            yield row


def _summarize(scores: Sequence[QuestionScore], kept: set[str], bounds: Bounds) -> FilterReport:
    failures = [score.list_missed(bounds) for score in scores]
    return FilterReport(
        questions=len(scores),
        kept=len(kept),
        missed={name: sum(name in missed for missed in failures) for name in asdict(bounds)},
        before=_average(scores),
        after=_average([score for score in scores if score.id in kept]),
    )


def _average(scores: Sequence[QuestionScore]) -> dict[str, float]:
    names = ("solver", "critic", "form")
    return {name: fmean(getattr(s, name) for s in scores) for name in names if scores}


def _write_card(report: FilterReport, bounds: Bounds, source: Path) -> str:
    rows = "\n".join(
        f"| {name} | {report.before[name]:.3f} | {report.after[name]:.3f} |"
        for name in report.before
    )
    limits = "\n".join(
        f"| {name} | {value:g} | {report.missed[name]} |" for name, value in asdict(bounds).items()
    )
    return f"""---
configs:
- config_name: default
  data_files: train.jsonl
---
# Filtered attempts with critiques

{report.kept} of {report.questions} questions of `{source.name}`, with all their attempts.

| bound | value | questions that missed it |
|---|---|---|
{limits}

| share of attempts | before | after |
|---|---|---|
{rows}

`solver`: correct attempts. `critic`: usable critiques that end in the right answer. `form`:
attempts in step form. To train on this data set: `DatasetTask` with the columns `question`,
`reference`, `answer: gold`, `attempt`, `finished`, `critique`.
"""
