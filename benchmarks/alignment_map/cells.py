"""Read the rows of the map as cells: a base and a condition, with one number per training seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.alignment_map import study
from benchmarks.alignment_map.intervals import Interval, student_interval
from benchmarks.alignment_map.study import Cell
from benchmarks.feedback_alignment.rows import read_accuracy
from benchmarks.grid import Row


@dataclass
class Cells:
    """All that is known of each cell; lists have one entry per training seed, in order."""

    probes: dict[Cell, Row] = field(default_factory=dict)
    """Estimates of the probe, by base and context."""
    areas: dict[Cell, list[float]] = field(default_factory=dict)
    """Mean validation accuracy over a run's rollouts."""
    finals: dict[Cell, list[float]] = field(default_factory=dict)
    """Validation accuracy after the last step."""
    tests: dict[Cell, list[float]] = field(default_factory=dict)
    """Test accuracy after the last step."""
    rates: dict[Cell, float] = field(default_factory=dict)
    """Learning rate of each trained cell."""
    runs: dict[Cell, list[Row]] = field(default_factory=dict)
    """The rows, for curves."""
    starts: dict[str, Row] = field(default_factory=dict)
    """The untrained run of each base with the first seed."""

    @property
    def bases(self) -> list[str]:
        """Bases with runs of the primary comparison, in the study's order."""
        return [
            base
            for base in study.BASES
            if (base, "critique") in self.areas and (base, "random_order") in self.areas
        ]

    def conditions(self, base: str) -> list[str]:
        """Conditions of a base without masks, in the study's order, the untrained first."""
        names = (study.UNTRAINED, *study.UNMASKED)
        return [name for name in names if (base, name) in self.areas]

    def competence(self, base: str) -> float:
        """Return the accuracy from right steps under a reference in a random order."""
        return float(self.probes[base, "random_order"]["continued"]["value"])

    def gaps(self, base: str, first: str, second: str) -> list[float]:
        """Return the differences of two conditions in AUC, one per training seed of both."""
        # The seeds of a cell with fewer are the first ones of the other.
        pair = zip(self.areas[base, first], self.areas[base, second], strict=False)
        return [a - b for a, b in pair]

    def difference(self, base: str, first: str, second: str) -> Interval:
        """Return the mean of :meth:`gaps` with its interval."""
        return student_interval(self.gaps(base, first, second))


def read_cells(admission: Sequence[Row], runs: Sequence[Row]) -> Cells:
    """Read the rows; cells without all training seeds are left out."""
    cells = Cells(probes={(row["base"], row["name"]): row["probe"] for row in admission})
    found: dict[Cell, dict[int, Row]] = {}
    for row in runs:
        found.setdefault((row["base"], row["name"]), {})[row["seed"]] = row
    for cell, rows in sorted(found.items(), key=lambda item: _rank(item[0])):
        base, name = cell
        if any(seed not in rows for seed in study.SEEDS):
            continue
        seeds = (*study.SEEDS, *study.MORE_SEEDS)
        has_more = set(seeds) <= set(rows) & set(found[base, study.UNTRAINED])
        chosen = [rows[seed] for seed in (seeds if has_more else study.SEEDS)]
        cells.runs[cell] = chosen
        if name == study.UNTRAINED:
            cells.starts[base] = chosen[0]
            cells.areas[cell] = [read_accuracy(row["curve"][0]) for row in chosen]
        else:
            starts = found[base, study.UNTRAINED]
            cells.areas[cell] = [study.measure_area(row, starts[row["seed"]]) for row in chosen]
            cells.rates[cell] = chosen[0]["lr"]
        cells.finals[cell] = [read_accuracy(row["curve"][-1]) for row in chosen]
        cells.tests[cell] = [
            statistics.mean(float(answer["avg"]) for answer in row["test"]) for row in chosen
        ]
    return cells


def _rank(cell: Cell) -> tuple[int, int]:
    """Order bases, and the untrained first within each."""
    names = [study.UNTRAINED, *study.CONDITIONS]
    return list(study.BASES).index(cell[0]), names.index(cell[1])
