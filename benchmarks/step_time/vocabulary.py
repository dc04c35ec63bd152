"""Show what grows more than linearly with the vocabulary.

    python -m benchmarks.step_time.vocabulary

Measures our step of the random model with JS at each vocabulary of the growth curve, on one thread:
processor seconds, the part of them spent in the operating system, and minor page faults, each in a
process of its own, and the operators in another. Writes ``vocabulary.csv`` and ``vocabulary.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.step_time.clock import PHASES, PREFIX, name_processor
from benchmarks.step_time.curves import CURVES
from benchmarks.step_time.operators import HERE, WHOLE, profile, read_rows
from benchmarks.step_time.shapes import SHAPES, Shape

COLUMNS = ("processor", "vocab", "reading", "phase", "operator", "value")
READINGS = ("processor", "system", "faults")
"""Of :data:`.clock.READINGS`."""
LISTED = 16
"""Operators in the table: those whose seconds exceed a linear growth most."""


def make_shape(changes: dict[str, int]) -> Shape:
    return replace(SHAPES["random32k"], **changes)


def measure_phases(changes: dict[str, int], reading: str) -> Iterator[tuple[str, float]]:
    """Yield each phase of the second step, and the whole step, in one reading."""
    words = [f"{name}={value}" for name, value in changes.items()]
    command = [sys.executable, "-m", "benchmarks.step_time.ours", "--shape", "random32k"]
    command += ["--set", *words, "--context", "column", "--steps", "1"]
    environment = {**os.environ, "STEP_TIME_READING": reading}
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(PREFIX)]
    result = json.loads(line.removeprefix(PREFIX))
    yield from result["phases"][0].items()
    yield WHOLE, result["steps"][0]


def add(path: Path, found: Sequence[dict[str, object]]) -> None:
    """Add rows to the file; rows of the same processor, vocabulary and reading leave."""
    place = ("processor", "vocab", "reading")
    new = {tuple(str(row[name]) for name in place) for row in found}
    kept = [row for row in read_rows(path) if tuple(row[name] for name in place) not in new]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, *found])


def format_phases(rows: Sequence[dict[str, str]], reading: str, digits: int) -> str:
    """Format one reading per phase and vocabulary."""
    values = {
        (row["phase"], int(row["vocab"])): float(row["value"])
        for row in rows
        if row["reading"] == reading
    }
    vocabs = sorted({vocab for _, vocab in values})
    lines = [
        f"| phase | {' | '.join(f'{v:,}' for v in vocabs)} |",
        "|---" * (1 + len(vocabs)) + "|",
    ]
    for phase in (*PHASES, WHOLE):
        cells = [f"{values[phase, vocab]:,.{digits}f}" for vocab in vocabs]
        lines.append(f"| {phase} | {' | '.join(cells)} |")
    return "\n".join(lines)


def format_operators(rows: Sequence[dict[str, str]]) -> str:
    """Format the operators that grow most beyond the line through their first two points."""
    values: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        if row["reading"] == "operators":
            place = values.setdefault((row["phase"], row["operator"]), {})
            place[int(row["vocab"])] = float(row["value"])
    vocabs = sorted({vocab for found in values.values() for vocab in found})
    first, last = vocabs[0], vocabs[-1]

    def exceed(found: dict[int, float]) -> float:
        low, high = (found.get(vocab, 0.0) for vocab in vocabs[:2])
        slope = (high - low) / (vocabs[1] - first)
        return found.get(last, 0.0) - low - slope * (last - first)

    lines = [
        "| phase | operator | " + " | ".join(f"{v:,}, s" for v in vocabs) + " | slopes, ms per "
        "thousand | above the first slope, s |",
        "|---" * (4 + len(vocabs)) + "|",
    ]
    ordered = sorted(values.items(), key=lambda pair: -exceed(pair[1]))
    for (phase, name), found in ordered[:LISTED]:
        every = [found.get(vocab, 0.0) for vocab in vocabs]
        slopes = [
            1e6 * (b - a) / (w - v)
            for a, b, v, w in zip(every, every[1:], vocabs, vocabs[1:], strict=False)
        ]
        cells = [phase, f"`{name}`", *(f"{value:.2f}" for value in every)]
        cells += [", ".join(f"{slope:.1f}" for slope in slopes), f"{exceed(found):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def format_report(rows: Sequence[dict[str, str]]) -> str:
    sections = ["# Growth with the vocabulary"]
    for processor in dict.fromkeys(row["processor"] for row in rows):
        own = [row for row in rows if row["processor"] == processor]
        sections += [f"## {processor}", "Processor seconds:", format_phases(own, "processor", 2)]
        sections += ["Of them in the operating system:", format_phases(own, "system", 2)]
        sections += ["Minor page faults:", format_phases(own, "faults", 0)]
        sections += [
            "Operators that grow beyond the line through their first two points:",
            format_operators(own),
        ]
    return "\n\n".join(sections) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="*", help="vocabularies; default: all")
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--operators", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    path = args.folder / "vocabulary.csv"
    curve = {point["vocab"]: point for point in CURVES["vocab"]}
    if args.operators:
        operators, _ = profile(make_shape(curve[args.operators]), "js", "column")
        head = {"processor": name_processor(), "vocab": args.operators, "reading": "operators"}
        facts = [(o.phase, o.name, round(o.seconds, 5)) for o in operators]
        add(path, [{**head, **dict(zip(COLUMNS[3:], fact, strict=True))} for fact in facts])
        return
    os.environ.update(STEP_TIME_SHARED="1", THP_MEM_ALLOC_ENABLE="1")
    for vocab in args.only or curve:
        for reading in READINGS:
            head = {"processor": name_processor(), "vocab": vocab, "reading": reading}
            phases = measure_phases(curve[vocab], reading)
            add(path, [{**head, "phase": name, "value": value} for name, value in phases])
        command = [sys.executable, "-m", "benchmarks.step_time.vocabulary"]
        command += ["--operators", str(vocab), "--folder", str(args.folder)]
        subprocess.run(command, check=True)
    (args.folder / "vocabulary.md").write_text(format_report(read_rows(path)))


if __name__ == "__main__":
    main()
