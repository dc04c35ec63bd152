"""Plot the figures of the map."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.alignment_map import study
from benchmarks.alignment_map.cells import Cells
from benchmarks.alignment_map.heat import list_knobs, plot_heat, plot_knobs
from benchmarks.alignment_map.intervals import student_interval
from benchmarks.feedback_alignment.rows import build_curve
from lightning_sd.diagnostics.plot_style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    make_figure,
    save_figure,
)

COLORS = {
    "critique": BLUE,
    "same_order": SKY,
    "random_order": VERMILION,
    "fixed_order": ORANGE,
    "coarse_random_order": PURPLE,
    "grpo": GRAY,
}
PANELS_PER_ROW = 3
COMPARED = ("random_order", "fixed_order", "same_order")
"""Contexts that the map compares with the critique."""


def plot_all(cells: Cells, folder: Path) -> None:
    """Plot the figures that have data."""
    if not cells.bases:
        return
    save_figure(plot_map(cells), folder / "map.svg")
    save_figure(plot_curves(cells), folder / "curves.svg")
    save_figure(plot_heat(cells), folder / "heat.svg")
    knobs = list_knobs(cells)
    if knobs:
        save_figure(plot_knobs(cells, knobs), folder / "knobs.svg")
    if any(name in study.MASKED for _, name in cells.areas):
        save_figure(plot_masks(cells), folder / "masks.svg")


def plot_map(cells: Cells) -> Any:
    """Plot what the critique gains over references, against the base's competence."""
    figure, axes = make_figure(7, 4.2)
    (axis,) = axes[0]
    axis.axhline(0, color=INK, linewidth=1)
    for number, name in enumerate(COMPARED):
        bases = [base for base in cells.bases if (base, name) in cells.areas]
        # Points of one base stand side by side.
        x = [100 * cells.competence(base) + number - 1 for base in bases]
        gaps = [cells.difference(base, "critique", name) for base in bases]
        y = [100 * gap.value for gap in gaps]
        errors = [100 * (gap.high - gap.value) for gap in gaps]
        label = name.replace("_", " ")
        axis.errorbar(x, y, errors, fmt="o", capsize=3, color=COLORS[name], label=label)
    axis.set_xlabel("competence: right from right steps under a random-order reference, %")
    axis.set_ylabel("critique minus reference, AUC points")
    axis.set_title("What the critique gains over a reference in ..., base by base")
    axis.legend(frameon=False)
    return figure


def plot_curves(cells: Cells) -> Any:
    """Plot validation accuracy over rollouts, one panel per base: the mean over seeds."""
    columns = min(PANELS_PER_ROW, len(cells.bases))
    rows = -(-len(cells.bases) // columns)
    figure, axes = make_figure(11, 0.6 + 3.2 * rows, rows, columns, sharex=True, sharey=True)
    panels = list(axes.flat)
    for axis, base in zip(panels, cells.bases, strict=False):
        start = cells.starts[base]
        for name in (n for n in COLORS if (base, n) in cells.runs):
            curves = [build_curve(run, start, "rollouts") for run in cells.runs[base, name]]
            points = [
                [statistics.mean(column) for column in zip(*same, strict=True)]
                for same in zip(*curves, strict=True)
            ]
            x, y = zip(*points, strict=True)
            label = name.replace("_", " ")
            axis.plot(x, [100 * v for v in y], color=COLORS[name], label=label)
        axis.set_title(f"{base}, competence {100 * cells.competence(base):.0f}%")
    for axis in panels[len(cells.bases) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("rollouts")
    figure.supylabel("validation accuracy, %")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def plot_masks(cells: Cells) -> Any:
    """Plot the AUC of training on a part of the signal, one row of panels per base."""
    contexts = ("critique", "random_order")
    masked = {base for base, name in cells.areas if name in study.MASKED}
    bases = [base for base in study.BASES if base in masked]
    figure, axes = make_figure(
        8, 0.4 + 2.8 * len(bases), len(bases), len(contexts), sharex=True, sharey=True
    )
    for panels, base in zip(axes, bases, strict=True):
        for axis, context in zip(panels, contexts, strict=True):
            names = [context, *(f"{context}/{mask}" for mask in study.MASKS)]
            names = [name for name in names if (base, name) in cells.areas]
            areas = [student_interval(cells.areas[base, name]) for name in names]
            axis.barh(
                [name.split("/")[1].replace("_", " ") if "/" in name else "all" for name in names],
                [100 * area.value for area in areas],
                xerr=[100 * (area.high - area.value) for area in areas],
                color=COLORS[context],
                ecolor=INK,
                capsize=3,
            )
            untrained = statistics.mean(cells.areas[base, study.UNTRAINED])
            axis.axvline(100 * untrained, color=INK, linewidth=1, linestyle="--")
            axis.set_title(f"{base}: {context.replace('_', ' ')}")
    # Panels share the axis, so one inversion puts "all" on top everywhere.
    axes[0][0].invert_yaxis()
    figure.supxlabel("AUC, % (dashed: untrained)")
    figure.supylabel("tokens that train")
    return figure
