"""The summary as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sd.analysis.figures import FIGURES, Figure


def number(value: float, figure: Figure) -> str:
    """One value as its figure is written.

    Example:
        >>> number(0.881, FIGURES["negative_mass"]), number(-0.25, FIGURES["prefix_mean"])
        ('88.1%', '-0.250')
    """
    return f"{100 * value:.1f}%" if figure.percent else f"{value:.3f}"


def cell(mean: Mapping[str, Any] | None, figure: Figure) -> str:
    """A mean with its interval and with what chance gives."""
    if mean is None:
        return "none"
    text = number(mean["value"], figure)
    if mean["low"] is not None:
        text += f" ({number(mean['low'], figure)} to {number(mean['high'], figure)})"
    if mean.get("chance") is not None:
        text += f"\nby chance {number(mean['chance'], figure)}"
    return text


def headline(summary: Mapping[str, Any]) -> str:
    """What was analysed, in one sentence or two."""
    text = (
        f"{summary['rollouts']} rollouts of {summary['questions']} questions; "
        f"{summary['with_error']} with a wrong step"
    )
    if summary["accuracy"] is not None:
        text += f"; {100 * summary['accuracy']['value']:.1f}% right"
    if summary["errors_unknown"]:
        text += f"; of {summary['errors_unknown']} nobody knows the wrong steps"
    return text + "."


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the figures of all contexts, and how they differ."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("", title=headline(summary), show_lines=True)
    for name, context in summary["contexts"].items():
        table.add_column(f"{name}\n{context['scored']} scored", justify="right")
    for difference in summary["differences"]:
        table.add_column(f"{difference['of']}\n- {difference['minus']}", justify="right")
    for key, figure in FIGURES.items():
        parts = [*summary["contexts"].values(), *summary["differences"]]
        cells = [cell(part["figures"].get(key), figure) for part in parts]
        if set(cells) - {"none"}:
            table.add_row(figure.label, *cells)
    console.print(table)
    console.print("95% intervals, bootstrap over questions.", style="dim")
