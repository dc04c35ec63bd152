"""Print a probe's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lightning_sd.metrics.intervals import Estimate
from lightning_sd.text.leaks import COPY_TOKENS

if TYPE_CHECKING:
    from lightning_sd.diagnostics.probe.report import ProbeReport

SHARE, POINTS, NATS = "{:.1%}", "{:+.1%}", "{:+.4f}"


class TableRow(NamedTuple):
    """One line of the table."""

    label: str
    estimate: str
    """Name of the estimate."""
    style: str
    """Format of its numbers."""


ROWS = (
    TableRow("student alone: correct", "student", SHARE),
    TableRow("teacher itself: correct", "teacher", SHARE),
    TableRow("  gain", "gain", POINTS),
    TableRow("failed attempts: teacher correct", "teacher_failed", SHARE),
    TableRow("  student correct in a second attempt", "again_failed", SHARE),
    TableRow("  gain", "gain_failed", POINTS),
    TableRow("teacher under an unrelated context: correct", "unrelated", SHARE),
    TableRow("  gain over the student alone", "unrelated_gain", POINTS),
    TableRow("from failed attempts' right steps: teacher correct", "continued", SHARE),
    TableRow("  student alone correct", "continued_alone", SHARE),
    TableRow("  gain", "continued_gain", POINTS),
    TableRow("attempts with a teacher", "has_teacher", SHARE),
    TableRow("teacher refers to its context", "leaks_teacher", SHARE),
    TableRow("  student does", "leaks_student", SHARE),
    TableRow(f"teacher copies it (runs of {COPY_TOKENS} tokens)", "copied_teacher", SHARE),
    TableRow("  student's attempt in it", "copied_student", SHARE),
    TableRow("teacher cut off", "cut_off_teacher", SHARE),
    TableRow("  student cut off", "cut_off_student", SHARE),
    TableRow("correct attempts likelier by teacher", "positive_right", SHARE),
    TableRow("wrong attempts likelier by teacher", "positive_wrong", SHARE),
    TableRow("negative mass from the first error on", "negative_from_error", SHARE),
    TableRow("  tokens from there on", "tokens_from_error", SHARE),
    TableRow("advantage per token, correct attempts", "advantage_right", NATS),
    TableRow("advantage per token, wrong attempts", "advantage_wrong", NATS),
)
"""The lines of the table, in order."""


def print_report(report: ProbeReport) -> None:
    """Print the table, the reasons, the costs and the verdict.

    Args:
        report: The report.
    """
    from rich import get_console
    from rich.table import Table

    console = get_console()
    title = (
        f"{report.context}, {report.teacher}: {report.questions} validation questions, "
        f"{report.samples} attempts each"
    )
    table = Table(title=title)
    for name in ("", "", "95% interval", "of"):
        table.add_column(name, justify="right" if table.columns else "left")
    for row in ROWS:
        if row.estimate in report.estimates:
            table.add_row(row.label, *_format_cells(report.estimates[row.estimate], row.style))
    console.print(table)
    for line in list_lines(report):
        # Without markup: reasons and phrases are texts of models and users.
        console.print(line, markup=False, highlight=False)


def list_lines(report: ProbeReport) -> list[str]:
    """List the sentences below the table."""
    costs = report.costs
    lines = [f"No teacher: {number} attempts, {why}." for why, number in report.missing.items()]
    if report.phrases:
        counts = ", ".join(f'"{phrase}" {number}' for phrase, number in report.phrases.items())
        lines.append(f"The teacher's words for its context: {counts}.")
    lines.append(
        f"Student: {costs.student_tokens} tokens, {costs.student_seconds:.1f} s with judging, "
        f"critiques and scoring (critic: {costs.critic_tokens} tokens, "
        f"{costs.critic_seconds:.1f} s). "
        f"Teacher: {costs.teacher_tokens} tokens, {costs.teacher_seconds:.1f} s."
    )
    lines += [f"Note: {note}." for note in report.verdict.notes]
    lines.append(f"Verdict: {report.verdict.word}: {report.verdict.why}.")
    return lines


def _format_cells(estimate: Estimate, style: str) -> tuple[str, str, str]:
    if estimate.value is None:
        return "none", "", str(estimate.number)
    value, low, high = (style.format(end) for end in estimate.ends())
    return value, f"{low} to {high}", str(estimate.number)
