"""What the fuzz scripts share: options, the loop over cases, times per size, and the report."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

SLACK = 4.0
"""Largest ratio of the times per character that counts as linear."""
FLOOR = 20.0
"""Nanoseconds per character below which a time is taken for noise."""


class Subject(NamedTuple):
    """Code under test."""

    draw: Callable[[random.Random], Any]
    """Makes the input of a case."""
    check: Callable[[Any], bool]
    """Returns False if the code refuses the input as it should; raises if the case fails."""


@dataclass
class Tally:
    """What the cases of one subject found."""

    cases: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


class Rates(NamedTuple):
    """Nanoseconds of processor time per character for a short and a long text."""

    short: float
    long: float

    @property
    def is_linear(self) -> bool:
        return self.long <= SLACK * max(self.short, FLOOR)


def parse_options(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options of a fuzz script."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e6, help="stop early after this time")
    parser.add_argument("--out", type=Path, help="file for the report, such as fuzz.md")
    return parser.parse_args(arguments)


def fuzz(
    subjects: Mapping[str, Subject], cases: int, seed: int, minutes: float = 1e6
) -> dict[str, Tally]:
    """Give the subjects their cases in turn.

    Args:
        subjects: The code under test, by name.
        cases: Number of cases over all subjects.
        seed: Seed of the random inputs.
        minutes: No case begins later than this many minutes after the start.
    """
    rng, end = random.Random(seed), time.monotonic() + 60 * minutes
    tallies = {name: Tally() for name in subjects}
    names = list(subjects)
    for case in range(cases):
        if time.monotonic() > end:
            break
        tally, subject = tallies[names[case % len(names)]], subjects[names[case % len(names)]]
        value = subject.draw(rng)
        tally.cases += 1
        try:
            tally.refused += not subject.check(value)
        except Exception as error:
            tally.failures.append(f"{error!r:.200}: {value!r:.1000}")
    return tallies


def find_slowest(
    readers: Mapping[str, Callable[[str], object]],
    pieces: Iterable[str],
    lengths: tuple[int, int],
) -> dict[str, Rates]:
    """Return the rates of the repeated piece that takes longest, by reader."""
    texts = [tuple(piece * (length // len(piece)) for length in lengths) for piece in pieces]
    return {
        name: max((Rates(*(_time(read, text) for text in pair)) for pair in texts), key=_get_long)
        for name, read in readers.items()
    }


def _get_long(rates: Rates) -> float:
    return rates.long


def _time(read: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    read(text)
    return (time.process_time() - start) / len(text) * 1e9


def report(
    title: str,
    command: str,
    options: argparse.Namespace,
    tallies: Mapping[str, Tally],
    rates: Mapping[str, Rates] | None = None,
    lengths: tuple[int, int] = (0, 0),
) -> int:
    """Print the tables and the failures, and write the tables; return the exit status."""
    done = sum(tally.cases for tally in tallies.values())
    asked = f"--cases {options.cases} --seed {options.seed}"
    stopped = f" It was stopped after {options.minutes:g} minutes." if done < options.cases else ""
    lines = [
        f"# {title}",
        "",
        f"`python -m benchmarks.reliability.{command} {asked}`",
        "",
        f"The script says what a case is, and when it fails.{stopped}",
        "",
        "| input | cases | refused | failures |",
        "|---|---|---|---|",
        *(f"| {n} | {t.cases:,} | {t.refused:,} | {len(t.failures)} |" for n, t in tallies.items()),
        "",
        *_describe_rates(rates or {}, lengths),
    ]
    text = "\n".join(lines)
    print(text)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    for name, tally in tallies.items():
        for failure in tally.failures[:5]:
            print(f"FAILED {name}: {failure}")
    slow = [name for name, rate in (rates or {}).items() if not rate.is_linear]
    if slow:
        print(f"NOT LINEAR: {slow}")
    return int(bool(slow) or any(tally.failures for tally in tallies.values()))


def _describe_rates(rates: Mapping[str, Rates], lengths: tuple[int, int]) -> list[str]:
    if not rates:
        return []
    return [
        "Time per character for the slowest repeated piece, in nanoseconds of processor time:",
        "",
        f"| reader | {lengths[0]:,} characters | {lengths[1]:,} characters |",
        "|---|---|---|",
        *(f"| {name} | {rate.short:.0f} | {rate.long:.0f} |" for name, rate in rates.items()),
        "",
    ]
