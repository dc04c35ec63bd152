"""The summary as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_sd.metrics.rollout_measures import FIGURES, Figure


def number(value: float, figure: Figure) -> str:
    """One value as its figure is written.

    Example:
        >>> number(0.881, FIGURES["negative_mass"]), number(-0.25, FIGURES["prefix_mean"])
        ('88.1%', '-0.250')
    """
    return f"{100 * value:.1f}%" if figure.percent else f"{value:.3f}"


def cell(mean: Mapping[str, Any] | None, figure: Figure) -> str:
    """A mean with its interval, and on a second line what chance gives."""
    if mean is None:
        return "none"
    text = number(mean["value"], figure)
    if mean["low"] is not None:
        low, high = (number(mean[end], figure).removesuffix("%") for end in ("low", "high"))
        text += f" [{low}, {high}]"
    if mean.get("chance") is not None:
        text += f"\nchance {number(mean['chance'], figure)}"
    return text


def headline(summary: Mapping[str, Any]) -> str:
    """What was analysed, in one sentence."""
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

    contexts = {
        f"{name}\n{context['scored']} scored": context["figures"]
        for name, context in summary["contexts"].items()
    }
    differences = {
        f"{part['of']}\n- {part['minus']}": part["figures"] for part in summary["differences"]
    }
    console = Console()
    console.print(_table(headline(summary), contexts))
    if differences:
        console.print(_table("Differences, on rollouts that both scored", differences))
    console.print("In brackets: 95% intervals, bootstrap over questions.", style="dim")


def _table(title: str, columns: Mapping[str, Mapping[str, Any]]) -> Any:
    from rich.box import HORIZONTALS
    from rich.table import Table
    from rich.text import Text

    table = Table("", title=title, box=HORIZONTALS, show_lines=True)
    for name in columns:
        table.add_column(name, justify="right")
    for key, figure in FIGURES.items():
        if any(key in found for found in columns.values()):
            cells = [cell(found.get(key), figure) for found in columns.values()]
            table.add_row(figure.label, *(Text(part) for part in cells))
    return table
