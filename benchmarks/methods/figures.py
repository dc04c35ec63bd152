"""Plot the two figures of the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.grid import Row
from benchmarks.methods import continual, lab
from lightning_sd.diagnostics.plot_style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    VERMILION,
    make_figure,
    save_figure,
)
from lightning_sd.metrics.intervals import Estimate, difference_over_seeds, mean_over_seeds


def plot_lab(rows: Sequence[Row], path: Path, *, draws: int) -> None:
    """Plot accuracy and change in length of every method, with intervals."""
    names = [name for name in lab.METHODS if any(row["name"] == name for row in rows)]
    figure, [[left, right]] = make_figure(9, 0.32 * len(names) + 1.5, columns=2, sharey=True)
    left.set_title("Accuracy after 40 steps")
    right.set_title("Change in length")
    before: list[float] = []
    for place, name in enumerate(names):
        runs = [row["questions"] for row in rows if row["name"] == name]
        before += [sum(run["before"]["avg"]) / len(run["before"]["avg"]) for run in runs]
        found = mean_over_seeds([run["after"]["avg"] for run in runs], draws=draws)
        _bar(left, place, found, scale=100)
        lengths = ([run[when]["length"] for run in runs] for when in ("after", "before"))
        _bar(right, place, difference_over_seeds(*lengths, draws=draws))
    left.axvline(100 * sum(before) / len(before), color=INK, ls=":", lw=1, label="untrained")
    right.axvline(0, color=INK, ls=":", lw=1)
    left.set(yticks=range(len(names)), yticklabels=names, xlabel="Avg@12, %", xlim=(0, 100))
    right.set(xlabel="length, tokens more than untrained")
    left.invert_yaxis()
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    left.legend(loc="lower left", frameon=False, fontsize=8)
    save_figure(figure, path)


def _bar(axes: Any, place: int, found: Estimate, scale: float = 1) -> None:
    value, low, high = (scale * end for end in found.ends())
    error = [[value - low], [high - value]]
    axes.errorbar(value, place, xerr=error, fmt="o", ms=4, capsize=2, color=BLUE)


def plot_continual(rows: Sequence[Row], path: Path) -> None:
    """Plot each run as a point: accuracy on the second task against accuracy on the first."""
    figure, [[axes]] = make_figure(6.4, 4.6)
    axes.set_title("Learning a second task, keeping the first")
    markers = dict(zip(continual.RATES, ("o", "^"), strict=True))
    colors = dict(zip(continual.METHODS, (BLUE, VERMILION, GREEN), strict=True))
    for row in rows:
        point = [100 * sum(row[t]["avg"]) / len(row[t]["avg"]) for t in ("second", "first")]
        color = colors.get(row["name"], GRAY)
        axes.scatter(*point, marker=markers.get(row.get("lr", 0.0), "s"), color=color, alpha=0.8)
    for name, color in {**colors, continual.BASE: GRAY}.items():
        axes.scatter([], [], color=color, marker="s", label=name)
    for rate, marker in markers.items():
        axes.scatter([], [], color=INK, marker=marker, label=f"lr {rate:g}")
    axes.set(
        xlabel="second task learned, Avg@12, %",
        ylabel="first task kept, Avg@12, %",
        xlim=(0, 100),
        ylim=(0, 60),
    )
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
