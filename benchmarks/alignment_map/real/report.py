"""Write the tables and the figure of the real model.

python -m benchmarks.alignment_map.real.report
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.alignment_map.intervals import paired_interval
from benchmarks.alignment_map.real.study import CONDITIONS, READ, RESULTS, SEEDS, UNTRAINED
from benchmarks.feedback_alignment.rows import Point, mean_along
from benchmarks.grid import Row, read_rows
from lightning_sd.diagnostics.plot_style import BLUE, GRAY, VERMILION, make_figure, save_figure

COLORS = {"critique": BLUE, "other_order": VERMILION, "grpo": GRAY}
PROBED = {
    "student": "alone",
    "unrelated": "unrelated context",
    "unrelated_gain": "unrelated minus alone",
    "teacher_failed": "failed attempts, fresh answer",
    "continued": "from right steps of failed attempts",
    "continued_alone": "the same, alone",
}
"""Estimates of the admission test, and their labels."""
PAIRS = (
    ("critique", "other_order"),
    ("critique", "grpo"),
    ("critique", UNTRAINED),
    ("other_order", UNTRAINED),
    ("grpo", UNTRAINED),
)
"""Comparisons; the first one is primary."""

Runs = dict[str, list[Row]]
RIGHT, SOLVED = "val/reward", "val/avg@2"
"""The outcome, the share of right results, and the share of answers with three right results."""


def read_runs(rows: Sequence[Row]) -> Runs:
    """Return the runs of each condition that has all seeds, by seed."""
    by_cell = {(row["name"], row["seed"]): row for row in rows}
    names = (UNTRAINED, *CONDITIONS)
    return {
        name: [by_cell[name, seed] for seed in SEEDS]
        for name in names
        if all((name, seed) in by_cell for seed in SEEDS)
    }


def build_curves(runs: Runs, name: str, outcome: str = RIGHT) -> list[list[Point]]:
    """Return the outcome along a condition's rollouts, from the untrained base on, per seed."""
    return [
        [
            Point(float(point.get("rollouts", 0)), float(point[outcome]))
            for point in (*start["curve"][:1], *(() if name == UNTRAINED else run["curve"]))
        ]
        for run, start in zip(runs[name], runs[UNTRAINED], strict=True)
    ]


def measure_areas(runs: Runs, name: str, outcome: str = RIGHT) -> list[float]:
    """Return the mean outcome over a run's rollouts, one number per seed."""
    curves = build_curves(runs, name, outcome)
    return [c[0].value if name == UNTRAINED else mean_along(c) for c in curves]


def write_admission(rows: Sequence[Row]) -> list[str]:
    """Write the admission test as a table."""
    lines = ["| | " + " | ".join(READ) + " |", "|---" * (len(READ) + 1) + "|"]
    probes = {row["name"]: row["probe"] for row in rows}
    for key, label in PROBED.items():
        cells = [_format_estimate(probes[name][key]) for name in READ]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def write_conditions(runs: Runs) -> list[str]:
    """Write outcome and cost of each condition as a table."""
    seeds = ", ".join(map(str, SEEDS))
    lines = [
        f"| | AUC | AUC of seeds {seeds} | last validation of seeds {seeds} "
        "| AUC of three right results | processor minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name in runs:
        areas = measure_areas(runs, name)
        solved = [statistics.mean(measure_areas(runs, name, SOLVED))]
        finals = [curve[-1].value for curve in build_curves(runs, name)]
        seconds = [run["curve"][-1].get("cpu_seconds", 0) for run in runs[name]]
        cost = "" if name == UNTRAINED else f"{statistics.mean(seconds) / 60:.1f}"
        cells = [_percent([statistics.mean(areas)]), _percent(areas), _percent(finals)]
        cells += [_percent(solved), cost]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def write_differences(runs: Runs) -> list[str]:
    """Write differences in AUC, paired by seed, with Student's interval, as a table."""
    lines = ["| AUC | points | of each seed |", "|---|---|---|"]
    for first, second in PAIRS:
        if first in runs and second in runs:
            areas = measure_areas(runs, first), measure_areas(runs, second)
            each = [a - b for a, b in zip(*areas, strict=True)]
            interval = paired_interval(*areas).format()
            lines.append(f"| {first} minus {second} | {interval} | {_percent(each)} |")
    return lines


def plot_curves(runs: Runs) -> Any:
    """Plot right results over rollouts: each seed, and their mean in bold."""
    figure, axes = make_figure(6, 3.8)
    (axis,) = axes[0]
    for name in (name for name in COLORS if name in runs):
        curves = build_curves(runs, name)
        x = [point.spent for point in curves[0]]
        lines = [[100 * point.value for point in curve] for curve in curves]
        for line in lines:
            axis.plot(x, line, color=COLORS[name], linewidth=0.8, alpha=0.5)
        mean = [statistics.mean(column) for column in zip(*lines, strict=True)]
        axis.plot(x, mean, color=COLORS[name], marker="o", label=name.replace("_", " "))
    axis.set_xlabel("rollouts")
    axis.set_ylabel("right results, %")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    return figure


def write_report(folder: Path) -> None:
    """Write ``results.md`` and ``curves.svg`` from the rows in a folder."""
    runs = read_runs(read_rows(folder / "main.jsonl"))
    parts = {
        "Admission": write_admission(read_rows(folder / "admission.jsonl")),
        "Conditions": write_conditions(runs),
        "Differences": write_differences(runs),
    }
    text = "# Results on the real model\n\nPercent; 95% intervals.\n"
    for title, lines in parts.items():
        text += "\n".join(["", f"## {title}", "", *lines, ""])
    (folder / "results.md").write_text(text, encoding="utf-8")
    save_figure(plot_curves(runs), folder / "curves.svg")


def _percent(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in values)


def _format_estimate(estimate: Row) -> str:
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.0f} [{low:.0f}, {high:.0f}]"


if __name__ == "__main__":
    write_report(RESULTS)
