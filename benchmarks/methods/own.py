"""What the studies with a model of their own share: EchoDistill's and RCSD's."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.grid import Collect, Row, Run, run_grid
from benchmarks.intervals import difference
from benchmarks.methods.report import answers, named

Grid = Callable[[Sequence[str], Sequence[int], int, Path], list[Run]]
"""From methods, seeds, steps and the model's folder to runs."""
Table = Callable[[Sequence[Row], Sequence[str]], Iterable[str]]
"""From rows and methods to lines of Markdown."""


def run_study(
    about: str,
    folder: Path,
    model: Path,
    methods: Sequence[str],
    grid: Grid,
    *,
    collect: Collect,
    table: Table,
) -> None:
    """Run what is still to be run, and write ``results.jsonl`` and ``results.md``.

    Args:
        about: The study in a line.
        folder: Where the results stand.
        model: The folder of the model that ``prepare`` has taught.
        methods: By name.
        grid: The runs.
        collect: What to keep of a run.
        table: How to show them.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=list(methods))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--model", type=Path, default=model)
    parser.add_argument("--results", type=Path, default=folder / "results.jsonl")
    parser.add_argument("--scratch", type=Path, default=model.parent / "study")
    args = parser.parse_args()
    if not args.model.exists():
        parser.error(f"{args.model} is missing: python -m benchmarks.methods.{folder.name}.prepare")
    runs = grid(args.methods, args.seeds, args.steps, args.model)
    rows = run_grid(runs, collect, args.results, args.scratch.resolve(), jobs=args.jobs)
    text = "\n".join(table(rows, args.methods)).rstrip() + "\n"
    print(text)
    args.results.with_suffix(".md").write_text(text, encoding="utf-8")


def gaps(
    rows: Sequence[Row], ours: str, others: Sequence[str], metric: str, draws: int
) -> Iterator[str]:
    """A line for each method that was run: by how many points ours is ahead in Avg@k.

    Args:
        rows: Of all runs.
        ours: A method; nothing is said if it was not run.
        others: What to compare it with.
        metric: What Avg@k is called in the line.
        draws: Bootstrap samples an interval.
    """
    for other in others:
        pair = (named(rows, ours), named(rows, other))
        if all(pair):
            first, second = (answers(runs, "avg") for runs in pair)
            gap = difference(first, second, draws=draws).text()
            yield f"{ours} minus {other}, {metric} in points: {gap}."
            yield ""
