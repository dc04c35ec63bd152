"""Draw the advantages of one rollout by position, one panel per context."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from lightning_sd.diagnostics.analysis.rows import Row, get_share
from lightning_sd.diagnostics.plot_style import (
    BLUE,
    GRAY,
    INK,
    VERMILION,
    make_figure,
    save_figure,
)
from lightning_sd.metrics.wrong_steps import find_first_wrong_token


def choose_typical_row(rows: Sequence[Row]) -> Row | None:
    """Choose the rollout to draw.

    Args:
        rows: Rows of an analysis.

    Returns:
        The rollout with the median share of negative mass at or after the error under the first
        context, among those that all contexts scored and that have a correct prefix. Without such
        rollouts, the first one with a wrong step that all contexts scored, else the first scored
        one; None if none was scored.
    """
    scored = [row for row in rows if any(row["contexts"].values())]
    if not scored:
        return None
    full = [row for row in scored if row["wrong"] and all(row["contexts"].values())]
    first = next(iter(scored[0]["contexts"]))
    valued = [
        (share.total, i)
        for i, row in enumerate(full)
        if row["steps"][min(row["wrong"]) - 1][0] > 0
        and (share := get_share(row, first, "negative_mass")) is not None
    ]
    if not valued:
        return full[0] if full else scored[0]
    return full[sorted(valued)[(len(valued) - 1) // 2][1]]


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the typical rollout in the style of Figure 4 of arXiv 2606.11173.

    Each context has a panel with one bar per token, shaded steps, a line at the first wrong step
    and the cumulative share of the negative mass. No file is written if no rollout was scored.

    Args:
        rows: Rows of an analysis.
        path: The file, in a format that matplotlib writes, such as ``figure.png``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    row = choose_typical_row(rows)
    if row is None:
        return
    contexts = {name: scored for name, scored in row["contexts"].items() if scored}
    size = (9, 0.6 + 2.4 * len(contexts))
    figure, axes = make_figure(*size, len(contexts), sharex=True, sharey=True)
    panels = axes[:, 0]
    for panel, (name, scored) in zip(panels, contexts.items(), strict=True):
        _draw_panel(panel, name, scored["advantages"], row)
    panels[-1].set_xlabel("token")
    save_figure(figure, path)


def _draw_panel(axes: Any, name: str, values: Sequence[float], row: Row) -> None:
    for number, (start, end) in enumerate(row["steps"], start=1):
        axes.axvspan(start - 0.5, end - 0.5, color=GRAY, alpha=0.2 if number % 2 else 0.06, lw=0)
        axes.annotate(
            str(number),
            ((start + end - 1) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            va="top",
            ha="center",
            fontsize=8,
            color=INK,
        )
    colors = [VERMILION if value < 0 else BLUE for value in values]
    axes.bar(range(len(values)), values, width=0.9, color=colors)
    axes.axhline(0, color=INK, lw=0.6)
    axes.set_ylabel("advantage, nats")
    first = find_first_wrong_token(row["steps"], row["wrong"])
    if first is not None:
        axes.axvline(first - 0.5, color=INK, ls="--", lw=1.2)
    axes.set_title(_format_title(name, values, first), fontsize=10, loc="left")
    mass = [max(-value, 0.0) for value in values]
    if sum(mass) > 0:
        other = axes.twinx()
        cumulative = [100 * part / sum(mass) for part in accumulate(mass)]
        other.step(range(len(mass)), cumulative, where="mid", color=INK, lw=1)
        other.set_ylim(0, 105)
        other.grid(visible=False)
        other.set_ylabel("cumulative negative mass, %")


def _format_title(name: str, values: Sequence[float], first: int | None) -> str:
    mass = sum(max(-value, 0.0) for value in values)
    if first is None or mass == 0:
        return name
    after = sum(max(-value, 0.0) for value in values[first:])
    chance = (len(values) - first) / len(values)
    return (
        f"{name}: {100 * after / mass:.0f}% of the negative mass at or after the first wrong step "
        f"(dashed; by chance {100 * chance:.0f}%)"
    )
