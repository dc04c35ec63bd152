"""Plot phases as bars, growth and the loss's memory as curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.step_time.table import PHASES, Entry, pairs
from lightning_sd.diagnostics.plot_style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    SERIES,
    VERMILION,
    make_figure,
    save_figure,
)

WHO = {"ours": BLUE, "sdpo": VERMILION, "sdft": VERMILION, "dense": GRAY, "chunked": ORANGE}
CURVE_NAMES = {
    "samples": "rollouts per question, at equal tokens",
    "completion": "completion, tokens",
    "teacher_prompt": "teacher's prompt, tokens",
    "vocab": "vocabulary",
    "layers": "layers",
    "prompt": "prompt, tokens",
}


def plot_all(entries: Sequence[Entry], folder: Path) -> None:
    """Plot the figures that have data."""
    for shape in dict.fromkeys(e["shape"] for e in entries if e["part"] == "step"):
        plot_phases(entries, shape, folder / f"phases_{shape}.svg")
    if any(e["part"] == "curve" for e in entries):
        plot_curves(entries, folder / "curves.svg")
    if any(e["part"] == "loss" for e in entries):
        plot_loss(entries, folder / "loss.svg")


def plot_phases(entries: Sequence[Entry], shape: str, path: Path) -> None:
    """Plot a bar for ours and one for TRL's per pair."""
    found = [pair for pair in pairs(entries) if pair[0]["shape"] == shape]
    if not found:
        return
    figure, [[axes]] = make_figure(9, 1.3 + 0.62 * len(found))
    figure.suptitle(f"Time and peak memory of a step, {shape}")
    labels, at = [], 0.0
    for our, peer in found:
        for entry in (our, peer):
            left = 0.0
            for phase, color in zip(PHASES, SERIES, strict=True):
                seconds = entry.phases[phase]
                axes.barh(at, seconds, left=left, color=color, height=0.9)
                left += seconds
            peak = entry.median("peak_mib")
            axes.text(left, at, f" {left:.3g} s, {peak:,.0f} MiB", va="center", fontsize=7)
            who = entry.who if entry is our else f"TRL {entry.who}"
            labels.append((at, f"{entry['loss']}, {entry['context']}: {who}"))
            at += 1
        at += 0.4
    axes.set_yticks([y for y, _ in labels], [name for _, name in labels], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.18, y=0.02)
    axes.set_xlabel("seconds per step")
    axes.grid(visible=False, axis="y")
    handles = axes.containers[: len(PHASES)]
    figure.legend(handles, PHASES, ncols=7, fontsize=8, loc="outside lower center", frameon=False)
    save_figure(figure, path)


def plot_curves(entries: Sequence[Entry], path: Path) -> None:
    """Plot time above memory, for the curves that have points."""
    measured = {entry["curve"] for entry in entries}
    curves = [(curve, label) for curve, label in CURVE_NAMES.items() if curve in measured]
    figure, axes = make_figure(3.2 * len(curves), 5.5, 2, len(curves))
    figure.suptitle("Time and peak memory of a step, by size")
    for column, (curve, label) in enumerate(curves):
        for who in ("ours", "sdft"):
            points = [e for e in entries if e["curve"] == curve and e["trainer"] == who]
            if not points:
                continue
            points.sort(key=lambda e: e[curve])
            x = [e[curve] for e in points]
            name = "ours" if who == "ours" else "TRL SDFT"
            for row, y in enumerate(([e.step for e in points], _peaks(points))):
                axes[row][column].plot(x, y, "o-", color=WHO[who], label=name)
        axes[1][column].set_xlabel(label)
        for row in (0, 1):
            from_zero(axes[row][column])
            if curve == "vocab":
                axes[row][column].xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k")
    axes[0][0].set_ylabel("step, seconds")
    axes[1][0].set_ylabel("peak memory, MiB")
    axes[0][0].legend(frameon=False)
    save_figure(figure, path)


def plot_loss(entries: Sequence[Entry], path: Path) -> None:
    """Plot the loss alone, JS, by tokens."""
    found = [e for e in entries if e["part"] == "loss" and e["kind"] == "js"]
    smallest = min(e["vocab"] for e in found)
    figure, [axes] = make_figure(9, 3.8, columns=2)
    figure.suptitle("The loss alone: time and memory, by tokens")
    for how in dict.fromkeys(e["how"] for e in found):
        points = [e for e in found if e["how"] == how and e["vocab"] == smallest]
        points.sort(key=lambda e: e["tokens"])
        x = [e["tokens"] for e in points]
        for axis, name in zip(axes, ("seconds", "grown_mib"), strict=True):
            axis.plot(x, [e.median(name) for e in points], "o-", color=_color(how), label=how)
    for axis, name in zip(axes, ("seconds", "memory, MiB"), strict=True):
        axis.set_xlabel(f"tokens (JS, vocabulary {smallest:,})")
        axis.set_ylabel(name)
        from_zero(axis)
    axes[0].legend(frameon=False)
    save_figure(figure, path)


def from_zero(axis: Any) -> None:
    axis.set_ylim(0, 1.15 * axis.dataLim.y1)


def _peaks(points: Sequence[Entry]) -> list[float]:
    return [e.median("peak_mib") for e in points]


def _color(how: str) -> str:
    return {**WHO, "sdpo": VERMILION}.get(how, INK)
