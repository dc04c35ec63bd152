"""The probe's table in the terminal, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_sd.diagnostics.probe.report import ProbeReport
from lightning_sd.metrics.intervals import Estimate
from lightning_sd.text.leaks import COPY_TOKENS

SHARE, POINTS, NATS = "{:.1%}", "{:+.1%}", "{:+.4f}"
ROWS = (
    ("student alone: right", "student", SHARE),
    ("teacher itself: right", "teacher", SHARE),
    ("  gain", "gain", POINTS),
    ("failed attempts: teacher right", "teacher_failed", SHARE),
    ("  student right at a second try", "again_failed", SHARE),
    ("  gain", "gain_failed", POINTS),
    ("attempts with a teacher", "has_teacher", SHARE),
    ("teacher speaks of its context", "leaks_teacher", SHARE),
    ("  student does so", "leaks_student", SHARE),
    (f"teacher copies it ({COPY_TOKENS} tokens)", "copied_teacher", SHARE),
    ("  student's attempt in it", "copied_student", SHARE),
    ("teacher cut off", "cut_off_teacher", SHARE),
    ("  student cut off", "cut_off_student", SHARE),
    ("right attempts likelier by teacher", "positive_right", SHARE),
    ("wrong attempts likelier by teacher", "positive_wrong", SHARE),
    ("negative mass from first error on", "negative_from_error", SHARE),
    ("  tokens there", "tokens_from_error", SHARE),
    ("advantage a token, right attempts", "advantage_right", NATS),
    ("advantage a token, wrong attempts", "advantage_wrong", NATS),
)
"""Label, estimate, and how its number is written; the advantage is in nats."""


def show(report: ProbeReport) -> None:
    """Print the table, the reasons, the costs and the verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = (
        f"{report.context}, {report.teacher}: {report.questions} validation questions, "
        f"{report.samples} attempts each"
    )
    table = Table(title=title)
    for name in ("", "", "95% interval", "of"):
        table.add_column(name, justify="right" if table.columns else "left")
    for label, name, style in ROWS:
        table.add_row(label, *_cells(report.estimates[name], style))
    console.print(table)
    for line in lines(report):
        # No markup: reasons and phrases are other people's words.
        console.print(line, markup=False, highlight=False)


def lines(report: ProbeReport) -> list[str]:
    """What stands below the table."""
    costs = report.costs
    found = [f"No teacher: {number} attempts, {why}." for why, number in report.missing.items()]
    if report.phrases:
        named = ", ".join(f'"{phrase}" {number}' for phrase, number in report.phrases.items())
        found.append(f"The teacher's words for its context: {named}.")
    found.append(
        f"Student: {costs.student_tokens} tokens, {costs.student_seconds:.1f} s with judging, "
        f"critiques and scoring (critic: {costs.critic_tokens} tokens, "
        f"{costs.critic_seconds:.1f} s). "
        f"Teacher: {costs.teacher_tokens} tokens, {costs.teacher_seconds:.1f} s. "
        f"Analysis: {costs.analysis_seconds:.1f} s."
    )
    found += [f"Note: {note}." for note in report.verdict.notes]
    found.append(f"Verdict: {report.verdict.word}: {report.verdict.why}.")
    return found


def write(report: ProbeReport, path: Path) -> None:
    """Write the report as JSON.

    Args:
        report: What was found.
        path: A file; written anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = asdict(report)
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cells(estimate: Estimate, style: str) -> tuple[str, str, str]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "none", "", str(estimate.number)
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (style.format(number) for number in numbers)
    return value, f"{low} to {high}", str(estimate.number)
