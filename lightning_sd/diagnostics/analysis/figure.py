"""A figure of one rollout: its advantages over position under each context."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from lightning_sd.diagnostics.analysis.rows import Row, share
from lightning_sd.metrics.wrong_steps import first_wrong_token

NEGATIVE, POSITIVE = "#D55E00", "#0072B2"
"""Okabe and Ito's vermilion and blue, which colour-blind readers tell apart."""


def typical_row(rows: Sequence[Row]) -> Row | None:
    """Choose the rollout to be drawn: neither the best nor the worst.

    Args:
        rows: Of an analysis.

    Returns:
        The one with the median share of negative mass at or after the error under the first
        context, among those that all contexts scored and that have a correct prefix; without any,
        the first rollout that was scored; None: none was.
    """
    scored = [row for row in rows if any(row["contexts"].values())]
    if not scored:
        return None
    full = [row for row in scored if row["wrong"] and all(row["contexts"].values())]
    first = next(iter(scored[0]["contexts"]))
    valued = [
        (found.total, i)
        for i, row in enumerate(full)
        if row["steps"][min(row["wrong"]) - 1][0] > 0
        and (found := share(row, first, "negative_mass")) is not None
    ]
    if not valued:
        return full[0] if full else scored[0]
    return full[sorted(valued)[(len(valued) - 1) // 2][1]]


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the typical rollout, in the manner of Figure 4 of arXiv 2606.11173.

    One panel a context: a bar a token, steps shaded in turn, a line at the first wrong step, and
    the share of the negative mass so far. Nothing is drawn if no rollout was scored.

    Args:
        rows: Of an analysis.
        path: A file that matplotlib can write, such as ``figure.png``.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Figures need matplotlib: pip install "lightning_sd[report]".') from error
    row = typical_row(rows)
    if row is None:
        return
    contexts = {name: found for name, found in row["contexts"].items() if found}
    figure = Figure(figsize=(9, 0.6 + 2.4 * len(contexts)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(contexts), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for panel, (name, found) in zip(panels, contexts.items(), strict=True):
        _panel(panel, name, found["advantages"], row)
    panels[-1].set_xlabel("token")
    figure.savefig(path, dpi=150)


def _panel(axes: Any, name: str, values: Sequence[float], row: Row) -> None:
    for number, (start, end) in enumerate(row["steps"], start=1):
        axes.axvspan(start - 0.5, end - 0.5, color="0.5", alpha=0.16 if number % 2 else 0.05, lw=0)
        axes.annotate(
            str(number),
            ((start + end - 1) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            va="top",
            ha="center",
            fontsize=8,
            color="0.35",
        )
    colours = [NEGATIVE if value < 0 else POSITIVE for value in values]
    axes.bar(range(len(values)), values, width=0.9, color=colours)
    axes.axhline(0, color="0.3", lw=0.6)
    axes.set_ylabel("advantage, nats")
    first = first_wrong_token(row["steps"], row["wrong"])
    if first is not None:
        axes.axvline(first - 0.5, color="black", ls="--", lw=1.2)
    axes.set_title(_title(name, values, first), fontsize=10, loc="left")
    mass = [max(-value, 0.0) for value in values]
    if sum(mass) > 0:
        other = axes.twinx()
        so_far = [100 * part / sum(mass) for part in accumulate(mass)]
        other.step(range(len(mass)), so_far, where="mid", color="black", lw=1)
        other.set_ylim(0, 105)
        other.set_ylabel("negative mass so far, %")


def _title(name: str, values: Sequence[float], first: int | None) -> str:
    mass = sum(max(-value, 0.0) for value in values)
    if first is None or mass == 0:
        return name
    after = sum(max(-value, 0.0) for value in values[first:])
    chance = (len(values) - first) / len(values)
    return (
        f"{name}: {100 * after / mass:.0f}% of the negative mass at or after the first wrong step "
        f"(dashed; by chance {100 * chance:.0f}%)"
    )
