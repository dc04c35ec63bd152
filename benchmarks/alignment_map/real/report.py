"""Write the tables and the figure of each real model.

python -m benchmarks.alignment_map.real.report
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.alignment_map.intervals import student_interval
from benchmarks.alignment_map.real.study import CONDITIONS, MODELS, READ, UNTRAINED
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
    "negative_from_error": "negative advantage from the first error on",
    "tokens_from_error": "tokens from the first error on",
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

Runs = dict[str, dict[int, Row]]
"""Runs by condition and seed."""
RIGHT, SOLVED = "val/reward", "val/avg@2"
"""The outcome, the share of right results, and the share of answers with three right results."""


def read_runs(rows: Sequence[Row]) -> Runs:
    """Return the runs by condition, in the order of the study, and seed."""
    found: Runs = {}
    for name in (UNTRAINED, *CONDITIONS):
        runs = {row["seed"]: row for row in rows if row["name"] == name}
        if runs:
            found[name] = dict(sorted(runs.items()))
    return found


def build_curves(runs: Runs, name: str, outcome: str = RIGHT) -> dict[int, list[Point]]:
    """Return the outcome along a condition's rollouts, from the untrained base on, by seed."""
    curves = {}
    for seed, run in runs[name].items():
        points = runs[UNTRAINED][seed]["curve"][:1]
        if name != UNTRAINED:
            points = [*points, *run["curve"]]
        curves[seed] = [Point(float(p.get("rollouts", 0)), float(p[outcome])) for p in points]
    return curves


def measure_areas(runs: Runs, name: str, outcome: str = RIGHT) -> dict[int, float]:
    """Return the mean outcome over a run's rollouts, by seed."""
    curves = build_curves(runs, name, outcome)
    return {s: c[0].value if name == UNTRAINED else mean_along(c) for s, c in curves.items()}


def write_admission(rows: Sequence[Row]) -> list[str]:
    """Write the admission test as a table."""
    probes = {row["name"]: row["probe"] for row in rows}
    names = [name for name in READ if name in probes]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for key, label in PROBED.items():
        cells = [_format_estimate(probes[name][key]) for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def write_conditions(runs: Runs) -> list[str]:
    """Write outcome and cost of each condition as a table, one row per run."""
    lines = [
        "| condition | seed | AUC | last validation | AUC of three right results "
        "| processor minutes of training |",
        "|---|---|---|---|---|---|",
    ]
    for name, by_seed in runs.items():
        areas, solved = measure_areas(runs, name), measure_areas(runs, name, SOLVED)
        for seed, curve in build_curves(runs, name).items():
            seconds = by_seed[seed]["curve"][-1].get("cpu_seconds", 0)
            cost = "" if name == UNTRAINED else f"{seconds / 60:.1f}"
            values = [_percent(v) for v in (areas[seed], curve[-1].value, solved[seed])]
            lines.append(f"| {name} | {seed} | " + " | ".join([*values, cost]) + " |")
    return lines


def write_differences(runs: Runs) -> list[str]:
    """Write differences in AUC, paired by seed, with Student's interval, as a table."""
    lines = ["| AUC | points | of each seed |", "|---|---|---|"]
    for first, second in PAIRS:
        if first in runs and second in runs:
            one, two = measure_areas(runs, first), measure_areas(runs, second)
            seeds = [seed for seed in one if seed in two]
            each = [one[seed] - two[seed] for seed in seeds]
            # One seed has no interval.
            mean = student_interval(each).format() if len(each) > 1 else "one seed"
            listed = ", ".join(map(_percent, each))
            lines.append(f"| {first} minus {second} | {mean} | {listed} |")
    return lines


def plot_curves(runs: Runs) -> Any:
    """Plot right results over rollouts: each seed, and their mean in bold."""
    figure, axes = make_figure(6, 3.8)
    (axis,) = axes[0]
    for name in (name for name in COLORS if name in runs):
        curves = list(build_curves(runs, name).values())
        x = [point.spent for point in curves[0]]
        lines = [[100 * point.value for point in curve] for curve in curves]
        for line in lines:
            axis.plot(x, line, color=COLORS[name], linewidth=0.8, alpha=0.5)
        mean = [statistics.mean(column) for column in zip(*lines, strict=True)]
        label = f"{name.replace('_', ' ')} ({len(lines)} seeds)"
        axis.plot(x, mean, color=COLORS[name], marker="o", label=label)
    axis.set_xlabel("rollouts")
    axis.set_ylabel("right results, %")
    axis.legend(frameon=False)
    return figure


def write_report(model: str, folder: Path) -> None:
    """Write ``results.md`` and ``curves.svg`` from the rows in a folder."""
    runs = read_runs(read_rows(folder / "main.jsonl"))
    parts = {
        "Admission": write_admission(read_rows(folder / "admission.jsonl")),
        "Conditions": write_conditions(runs),
        "Differences": write_differences(runs),
    }
    text = f"# Results on the real model: {model}\n\nPercent; 95% intervals.\n"
    for title, lines in parts.items():
        text += "\n".join(["", f"## {title}", "", *lines, ""])
    (folder / "results.md").write_text(text, encoding="utf-8")
    save_figure(plot_curves(runs), folder / "curves.svg")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _format_estimate(estimate: Row) -> str:
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.0f} [{low:.0f}, {high:.0f}]"


if __name__ == "__main__":
    for model, (_, results) in MODELS.items():
        if (results / "main.jsonl").exists():
            write_report(model, results)
