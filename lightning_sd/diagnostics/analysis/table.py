"""Print the summary of an analysis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sd.metrics.measures import MEASURES, Measure


def format_value(value: float, measure: Measure) -> str:
    """Format one value of a measure.

    Example:
        >>> format_value(0.881, MEASURES["negative_mass"])
        '88.1%'
        >>> format_value(-0.25, MEASURES["prefix_mean"])
        '-0.250'
    """
    return f"{100 * value:.1f}%" if measure.percent else f"{value:.3f}"


def format_cell(mean: Mapping[str, Any] | None, measure: Measure) -> str:
    """Format a mean with its interval and, on a second line, its value by chance.

    Args:
        mean: An entry of the summary's ``measures``; None if it is not defined.
        measure: The measure.
    """
    if mean is None:
        return "none"
    text = format_value(mean["value"], measure)
    if mean["low"] is not None:
        low, high = (format_value(mean[end], measure).removesuffix("%") for end in ("low", "high"))
        text += f" [{low}, {high}]"
    if mean.get("chance") is not None:
        text += f"\nchance {format_value(mean['chance'], measure)}"
    return text


def describe_summary(summary: Mapping[str, Any]) -> str:
    """Say in one sentence what was analyzed."""
    text = (
        f"{summary['rollouts']} rollouts of {summary['questions']} questions; "
        f"{summary['with_error']} with a wrong step"
    )
    if summary["accuracy"] is not None:
        text += f"; {100 * summary['accuracy']['value']:.1f}% correct"
    if summary["errors_unknown"]:
        text += f"; wrong steps unknown for {summary['errors_unknown']}"
    return text + "."


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the measures of all contexts, and the differences between them.

    Args:
        summary: A summary from :func:`.summary.summarize_rows`.
    """
    from rich import get_console

    contexts = {
        f"{name}\n{context['scored']} scored": context["measures"]
        for name, context in summary["contexts"].items()
    }
    differences = {
        f"{part['of']}\n- {part['minus']}": part["measures"] for part in summary["differences"]
    }
    console = get_console()
    console.print(_build_table(describe_summary(summary), contexts))
    if differences:
        console.print(_build_table("Differences, on rollouts that both scored", differences))
    console.print("In brackets: 95% intervals, bootstrap over questions.", style="dim")


def _build_table(title: str, columns: Mapping[str, Mapping[str, Any]]) -> Any:
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    table = Table("", title=title, box=HORIZONTALS, show_lines=True)
    for name in columns:
        table.add_column(name, justify="right")
    for key, measure in MEASURES.items():
        if any(key in measures for measures in columns.values()):
            cells = [format_cell(measures.get(key), measure) for measures in columns.values()]
            table.add_row(measure.label, *(Text(cell) for cell in cells))
    return table
