"""Compare the phases of our step with the bare products of the same phases."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.step_time.clock import PHASES
from benchmarks.step_time.table import Entry

PRODUCTS = {
    "rollout": ("prefill", "packed"),
    "teacher": ("teacher",),
    "student": ("student",),
    "loss": ("heads",),
    "backward": ("backward",),
    "optimizer": (),
}
"""Parts of the floor that each of our phases must compute."""


def list_distances(entries: Sequence[Entry]) -> list[list[Any]]:
    """List shape, phase, our seconds, those of its products, and its share of the difference.

    Seconds are medians over processes, so that phases need not add up to the median step. The
    floor's attention is timed for a whole step and left out, as it is no part of a single phase.

    Args:
        entries: All cases of one processor.
    """
    floors = {entry["shape"]: entry for entry in entries if entry["part"] == "floor"}
    rows = []
    for entry in entries:
        floor = floors.get(entry["shape"])
        if floor is None or entry["part"] != "step" or entry.who != "ours":
            continue
        if (entry["loss"], entry["context"]) != ("js", "sibling"):
            continue
        ours = {phase: _find_median(entry, phase) for phase in PHASES}
        products = {phase: _sum_products(floor, phase) for phase in PHASES}
        whole = sum(ours.values()) - sum(products.values())
        for phase in PHASES:
            above = ours[phase] - products[phase]
            share = f"{above / whole:.0%}"
            rows.append([entry["shape"], phase, ours[phase], products[phase], above, share])
    return rows


def _find_median(entry: Entry, phase: str) -> float:
    found = [phases[phase] for result in entry.rounds.values() for phases in result["phases"]]
    return statistics.median(found)


def _sum_products(floor: Entry, phase: str) -> float:
    """Return the median over processes of a phase's products."""
    sums = [
        sum({**result["parts"], "packed": result["packed"]}[name] for name in PRODUCTS[phase])
        for result in floor.rounds.values()
    ]
    return statistics.median(sums)
