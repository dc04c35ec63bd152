"""Choosing the questions worth training on: hard for the solver, solved by the critic, in form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lightning_sd.tasks.answers import Judge, judge
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
    """Which questions are kept; the defaults follow arXiv 2606.11173 where it gives numbers."""

    max_solver: float = 0.3125
    """The solver's share of right attempts must be below this (5 of 16)."""
    min_critic: float = 0.5
    """At least this share of the critiques must be usable and end in the right answer."""
    min_form: float = 0.8
    """At least this share of the attempts must keep to the step form."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: a share, from 0 to 1.")


@dataclass(frozen=True)
class QuestionScore:
    """What is known about one question."""

    id: str
    attempts: int
    solver: float
    """Share of right attempts (Avg@k)."""
    critic: float
    """Share of attempts whose critique is usable and ends in the right answer."""
    form: float
    """Share of attempts in the step form."""

    def failures(self, bounds: Bounds) -> list[str]:
        """Names of the bounds that the question misses; none: it is kept."""
        missed = {
            "max_solver": self.solver >= bounds.max_solver,
            "min_critic": self.critic < bounds.min_critic,
            "min_form": self.form < bounds.min_form,
        }
        return [name for name, miss in missed.items() if miss]


@dataclass(frozen=True)
class FilterReport:
    """What came of filtering."""

    questions: int
    kept: int
    missed: Mapping[str, int]
    """Questions that missed each bound; one may miss several."""
    before: Mapping[str, float]
    """Means over all questions of ``solver``, ``critic`` and ``form``."""
    after: Mapping[str, float]
    """The same over those that were kept."""


def filter_attempts(
    source: str | Path,
    out: str | Path,
    bounds: Bounds | None = None,
    *,
    judge_method: Judge = "exact",
) -> FilterReport:
    """Filter attempts and write those of the kept questions as a data set with its card.

    Args:
        source: JSON lines with several attempts a question and their critiques, as ``critique`` or
            ``predict`` writes them.
        out: Folder for ``train.jsonl`` and ``README.md``.
        bounds: What is kept.
        judge_method: How the critics' answers are compared with ``gold``.

    Returns:
        The report that stands in the card as well.

    Raises:
        ValueError: A line lacks a column, or nothing is kept.
    """
    bounds = bounds or Bounds()
    scores = score_questions(read_rows(source), judge_method)
    kept = {score.id for score in scores if not score.failures(bounds)}
    report = _report(scores, kept, bounds)
    if not kept:
        raise ValueError(
            f"No question of {source} is within {bounds}: {dict(report.missed)} of "
            f"{report.questions} questions missed each bound. Widen the bounds."
        )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as stream:
        for row in read_rows(source):
            if row["id"] in kept:
                plain = {name: row[name] for name in KEPT_COLUMNS}
                stream.write(json.dumps(plain, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(_card(report, bounds, Path(source)), encoding="utf-8")
    return report


def score_questions(
    rows: Iterable[Mapping[str, Any]], judge_method: Judge = "exact"
) -> list[QuestionScore]:
    """Gather attempts by question, in the order of first appearance."""
    found: dict[str, list[tuple[bool, bool, bool]]] = {}
    for row in rows:
        critique = row["critique"] if row["refused"] is None else None
        found.setdefault(row["id"], []).append(
            (
                bool(row["correct"]),
                critique is not None and judge(row["gold"], critique, judge_method).correct,
                parse_steps(row["attempt"]).well_formed,
            )
        )
    return [
        QuestionScore(name, len(marks), *(fmean(column) for column in zip(*marks, strict=True)))
        for name, marks in found.items()
    ]


def read_rows(source: str | Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of attempts.

    Raises:
        ValueError: A line lacks a column.
    """
    with Path(source).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            row = json.loads(line)
            missing = sorted(set(KEPT_COLUMNS) - row.keys())
            if missing:
                raise ValueError(f"{source}, line {number}: it lacks {missing}.")
            yield row


def _report(scores: Sequence[QuestionScore], kept: set[str], bounds: Bounds) -> FilterReport:
    failures = [score.failures(bounds) for score in scores]
    return FilterReport(
        questions=len(scores),
        kept=len(kept),
        missed={name: sum(name in missed for missed in failures) for name in asdict(bounds)},
        before=_means(scores),
        after=_means([score for score in scores if score.id in kept]),
    )


def _means(scores: Sequence[QuestionScore]) -> dict[str, float]:
    names = ("solver", "critic", "form")
    return {name: fmean(getattr(s, name) for s in scores) for name in names if scores}


def _card(report: FilterReport, bounds: Bounds, source: Path) -> str:
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

`solver`: right attempts. `critic`: usable critiques that end in the right answer. `form`: attempts
in the step form. To train on it: `DatasetTask` with the columns `question`, `reference`,
`answer: gold`, `attempt`, `finished`, `critique`.
"""
