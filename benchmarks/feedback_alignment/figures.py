"""Plot the figures of the study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.feedback_alignment.rows import BUDGETS, build_curve, select_scores
from benchmarks.feedback_alignment.study import BASE, TABLE, WEAK, Plan
from benchmarks.grid import Row
from lightning_sd.diagnostics.plot_style import (
    BLUE,
    GRAY,
    INK,
    SKY,
    VERMILION,
    make_figure,
    save_figure,
)
from lightning_sd.metrics.intervals import mean_over_seeds

COLORS = {"grpo": GRAY, "refsol": VERMILION, "step_aligned": BLUE, BASE: INK}
OTHER = SKY
Conditions = Mapping[str, Sequence[Row]]


def plot_all(found: Conditions, folder: Path, plan: Plan, *, draws: int) -> None:
    """Plot the figures that have data."""
    if any(name in found for name in TABLE):
        save_figure(plot_curves(found, plan), folder / "curves.svg")
    if len(found) > 1:
        save_figure(plot_conditions(found, plan, draws=draws), folder / "conditions.svg")
    if any(name in found for name in WEAK):
        save_figure(plot_weak(found, plan, draws=draws), folder / "weak_critic.svg")


def plot_curves(found: Conditions, plan: Plan) -> Any:
    """Plot validation accuracy of the main conditions per budget: seeds thin, their mean thick.

    Means are taken per validation, so each mean is placed at the mean spent budget.
    """
    starts = {run["seed"]: run for run in found.get(BASE, ())}
    figure, axes = make_figure(11, 3.6, columns=len(BUDGETS), sharey=True)
    figure.suptitle("Validation accuracy during training (thin: seeds, thick: their mean)")
    for axis, (budget, label) in zip(axes[0], BUDGETS.items(), strict=True):
        for name in (n for n in TABLE if n in found):
            curves = [build_curve(run, starts.get(run["seed"]), budget) for run in found[name]]
            for points in curves:
                x, y = zip(*points, strict=True)
                axis.plot(x, [100 * v for v in y], color=COLORS[name], alpha=0.3, linewidth=0.8)
            means = [
                [statistics.mean(part) for part in zip(*same, strict=True)]
                for same in zip(*curves, strict=False)
            ]
            axis.plot(
                [x for x, _ in means],
                [100 * y for _, y in means],
                color=COLORS[name],
                linewidth=2,
                label=name,
            )
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=5)
    axes[0, 0].set_ylabel(f"validation Avg@{plan.k}, %")
    # Outside the panels, because curves of some solver cover every place inside them.
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=len(TABLE))
    return figure


def plot_conditions(found: Conditions, plan: Plan, *, draws: int) -> Any:
    """Plot test accuracy of all conditions with intervals, and each seed as a dot."""
    figure, [[axis]] = make_figure(7, 1.2 + 0.36 * len(found))
    axis.set_title("Test accuracy of all conditions")
    names = list(reversed(found))
    for place, name in enumerate(names):
        table = select_scores(found[name], "avg")
        mean, low, high = (100 * end for end in mean_over_seeds(table, draws=draws).ends())
        color = COLORS.get(name, OTHER)
        axis.plot([low, high], [place, place], color=color, linewidth=2)
        axis.plot(mean, place, "o", color=color, markersize=7)
        seeds = [100 * statistics.mean(row) for row in table]
        axis.plot(seeds, [place - 0.25] * len(seeds), ".", color=color, alpha=0.5, markersize=4)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel(f"test Avg@{plan.k}, % (95% interval; small dots: seeds)")
    axis.grid(visible=False, axis="y")
    return figure


def plot_weak(found: Conditions, plan: Plan, *, draws: int) -> Any:
    """Plot test accuracy against the share of wrong corrections, beside the other signals."""
    shares = {"step_aligned": 0, **{name: int(name.rsplit("_", 1)[1]) for name in WEAK}}
    shares = {name: share for name, share in shares.items() if name in found}
    figure, [[axis]] = make_figure(6.4, 4.2)
    axis.set_title("A critic that corrects wrongly")
    tables = [select_scores(found[name], "avg") for name in shares]
    values = [mean_over_seeds(table, draws=draws).ends() for table in tables]
    means = [100 * mean for mean, _, _ in values]
    below = [100 * (mean - low) for mean, low, _ in values]
    above = [100 * (high - mean) for mean, _, high in values]
    axis.errorbar(
        list(shares.values()),
        means,
        [below, above],
        color=COLORS["step_aligned"],
        marker="o",
        capsize=3,
        label="step-aligned critique",
    )
    for name in (n for n in ("refsol", "grpo", BASE) if n in found):
        level, _, _ = mean_over_seeds(select_scores(found[name], "avg"), draws=draws).ends()
        axis.axhline(100 * level, color=COLORS[name], linestyle="--", linewidth=1, label=name)
    axis.set_xlabel("corrections that are wrong, %")
    axis.set_ylabel(f"test Avg@{plan.k}, %")
    axis.legend(frameon=False)
    return figure
