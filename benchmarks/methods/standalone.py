"""Shared command line of the studies with a separate model: EchoDistill and RCSD."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.grid import Collect, Row, Run, run_grid
from benchmarks.methods.report import select_answers, select_runs
from lightning_sd.metrics.intervals import difference_over_seeds

Grid = Callable[[Sequence[str], Sequence[int], int, Path], list[Run]]
"""(methods, seeds, steps, model folder) -> runs."""
Table = Callable[[Sequence[Row], Sequence[str]], Iterable[str]]
"""(rows, methods) -> lines of Markdown."""


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
    """Run the missing cells, then write ``results.jsonl`` and ``results.md``.

    Args:
        about: One-line description of the study.
        folder: Folder of the results.
        model: Default folder of the model that ``prepare`` trained.
        methods: Names of the methods.
        grid: Builds the runs.
        collect: Reads a run's columns from its folder.
        table: Formats the rows.
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


def format_gaps(
    rows: Sequence[Row], ours: str, others: Sequence[str], metric: str, draws: int
) -> Iterator[str]:
    """Yield one line per method that was run: the lead of ``ours`` in points of Avg@k.

    Args:
        rows: Rows of all runs.
        ours: A method; without runs of it there are no lines.
        others: Methods to compare it with.
        metric: Name of Avg@k in the line.
        draws: Bootstrap samples per interval.
    """
    for other in others:
        pair = (select_runs(rows, ours), select_runs(rows, other))
        if all(pair):
            first, second = (select_answers(runs, "avg") for runs in pair)
            gap = difference_over_seeds(first, second, draws=draws).format()
            yield f"{ours} minus {other}, {metric} in points: {gap}."
            yield ""
