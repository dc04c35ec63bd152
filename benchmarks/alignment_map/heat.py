"""Heat maps: all conditions on all bases, and one table for each pair of knobs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.alignment_map import study
from benchmarks.alignment_map.cells import Cells
from benchmarks.alignment_map.study import Cell
from lightning_sd.diagnostics.plot_style import make_figure

MAX_AUC = 80
"""End of the color scale, in percent."""


@dataclass(frozen=True)
class Knobs:
    """A pair of knobs: the cell at each pair of their settings."""

    knobs: tuple[str, str]
    """What the rows and the columns set."""
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    """One list per row."""

    def read_table(self, cells: Cells) -> list[list[float]]:
        """Return the AUC of each pair in percent; nan where it was not run."""
        return [[read_area(cells, cell) for cell in row] for row in self.cells]


def read_area(cells: Cells, cell: Cell) -> float:
    """Return a cell's mean AUC in percent, nan without runs."""
    return 100 * statistics.mean(cells.areas[cell]) if cell in cells.areas else math.nan


def list_knobs(cells: Cells) -> list[Knobs]:
    """List the pairs of knobs with at least two settings in every row."""
    bases = [
        base
        for base in sorted(cells.bases, key=cells.competence)
        if (base, "same_order") in cells.areas
    ]
    orders = ("same_order", "fixed_order", "random_order")
    scaled = ("recovery-1", *study.PARTS["scaled"].bases)
    starts = [f"{read_area(cells, (base, study.UNTRAINED)):.0f}%" for base in scaled]
    contexts = study.PARTS["scaled"].conditions
    found = [
        Knobs(
            ("competence of the teacher", "order of the reference"),
            [f"{100 * cells.competence(base):.0f}%" for base in bases],
            ["the attempt's", "fixed", "random"],
            [[(base, order) for order in orders] for base in bases],
        ),
        Knobs(
            ("operations per step", "order of the reference, recovery-1"),
            ["one", "two"],
            ["the attempt's", "random"],
            [
                [("recovery-1", "same_order"), ("recovery-1", "random_order")],
                [("recovery-1", "coarse_same_order"), ("recovery-1", "coarse_random_order")],
            ],
        ),
        Knobs(
            ("initial accuracy", "context, bases of kind recovery"),
            starts,
            [name.replace("_", "\n") for name in contexts],
            [[(base, name) for name in contexts] for base in scaled],
        ),
    ]
    return [
        knobs
        for knobs in found
        if knobs.rows
        and all(sum(not math.isnan(v) for v in row) > 1 for row in knobs.read_table(cells))
    ]


def plot_knobs(cells: Cells, knobs: Sequence[Knobs]) -> Any:
    """Plot one heat map per pair of knobs, at least one."""
    rows = -(-len(knobs) // 2)
    figure, axes = make_figure(10, 0.6 + 3.5 * rows, rows, 2)
    panels = list(axes.flat)
    for axis, pair in zip(panels, knobs, strict=False):
        image = draw_table(axis, pair.read_table(cells), pair.rows, pair.columns)
        axis.set_ylabel(pair.knobs[0])
        axis.set_xlabel(pair.knobs[1])
    for axis in panels[len(knobs) :]:
        axis.set_visible(False)
    figure.colorbar(image, ax=axes, label="AUC, %")
    return figure


def plot_heat(cells: Cells) -> Any:
    """Plot the AUC of each condition on each base as a table of colors."""
    names = [
        name for name in study.UNMASKED if any((base, name) in cells.areas for base in cells.bases)
    ]
    table = [[read_area(cells, (base, name)) for base in cells.bases] for name in names]
    figure, axes = make_figure(1.2 * len(cells.bases) + 1.5, 0.5 * len(names) + 1.4)
    (axis,) = axes[0]
    competences = [f"{base}\n{100 * cells.competence(base):.0f}%" for base in cells.bases]
    image = draw_table(axis, table, [name.replace("_", " ") for name in names], competences)
    figure.colorbar(image, label="AUC, %")
    axis.set_xlabel("base and its competence")
    return figure


def draw_table(
    axis: Any, table: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str]
) -> Any:
    """Draw a table of percentages as colors; return the image, for a color bar.

    Args:
        axis: A panel.
        table: One list per row; nan leaves a field empty.
        rows: Labels of the rows.
        columns: Labels of the columns.
    """
    axis.grid(visible=False)
    image = axis.imshow(table, cmap="cividis", vmin=0, vmax=MAX_AUC, aspect="auto")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            if math.isnan(value):
                continue
            # Light colors need dark text, on a dark page as well.
            color = "black" if value > MAX_AUC / 2 else "white"
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    return image
