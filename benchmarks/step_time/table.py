"""Group the rows of ``results.csv``: the processes of one case become one entry."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHASES = ("rollout", "teacher", "student", "loss", "backward", "optimizer", "other")


@dataclass(frozen=True)
class Entry:
    """All successful processes of one case."""

    facts: dict[str, Any]
    rounds: dict[int, dict[str, Any]]
    """Result of the process per round."""
    others: tuple[float, ...]
    """Cores that other processes used, per round."""
    commits: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.facts.get(name)

    @property
    def who(self) -> str:
        """Trainer with special settings, such as checkpointing."""
        marks = ["checkpointing"] if self["checkpointing"] else []
        marks += [f"{self['pages']} pages"] if self["pages"] else []
        return ", ".join([self["trainer"], *marks])

    def median(self, name: str) -> float:
        """Return the median of one value over processes."""
        return statistics.median(float(found[name]) for found in self.rounds.values())

    @property
    def step(self) -> float:
        """Median over processes of the median step, in seconds."""
        return statistics.median(self.steps.values())

    @property
    def steps(self) -> dict[int, float]:
        return {r: statistics.median(found["steps"]) for r, found in self.rounds.items()}

    @property
    def phases(self) -> dict[str, float]:
        """Seconds of each phase in the median step."""
        every = [
            (seconds, phases)
            for found in self.rounds.values()
            for seconds, phases in zip(found["steps"], found["phases"], strict=True)
        ]
        seconds, phases = sorted(every, key=lambda pair: pair[0])[(len(every) - 1) // 2]
        return {**phases, "other": max(0.0, seconds - sum(phases.values()))}


def list_processors(path: Path) -> list[str]:
    """Return the processors of the rows in the order of their first measurement."""
    with path.open(newline="") as file:
        return list(dict.fromkeys(row["processor"] for row in csv.DictReader(file)))


def read(path: Path, processor: str | None = None) -> list[Entry]:
    """Read entries, of all processors or of one, in the order of their first measurement."""
    grouped: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["status"] == "ok" and processor in (None, row["processor"]):
                grouped.setdefault(row["key"], []).append(row)
    return [
        Entry(
            json.loads(rows[0]["facts"]),
            {int(row["round"]): json.loads(row["result"]) for row in rows},
            tuple(float(json.loads(row["result"]).get("others", "inf")) for row in rows),
            tuple(dict.fromkeys(row["commit"] for row in rows)),
        )
        for rows in grouped.values()
    ]


def pairs(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Pair TRL's steps with ours of the same shape, loss and context."""
    steps = [e for e in entries if e["part"] == "step"]
    alike = ("shape", "loss", "context", "checkpointing", "pages")
    ours = {tuple(e[name] for name in alike): e for e in steps if e["trainer"] == "ours"}
    found = []
    for entry in steps:
        match = ours.get(tuple(entry[name] for name in alike))
        if entry["trainer"] != "ours" and match is not None:
            found.append((match, entry))
    return found


def markdown(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a table; numbers have about three significant digits."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(shown(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def shown(cell: object) -> str:
    if not isinstance(cell, float):
        return "" if cell is None else str(cell)
    if abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}" if abs(cell) >= 1 else f"{cell:.3f}"
