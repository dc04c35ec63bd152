"""Run a grid of trainings through the command line, and go on where it was stopped.

A study is a list of :class:`Run`. Each is `fit` (and, if the study selects checkpoints, `test`) in
a folder of its own, by the same commands that anyone could type. What came out of it is one line of
``results.jsonl``; a run without a line is done anew, so the grid may be killed at any time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One cell of the grid."""

    name: str
    """Condition or method."""
    seed: int
    commands: Sequence[Sequence[str]]
    """Arguments of ``python -m lightning_sd``, run one after another in the run's folder; or of
    another module if the first word is ``-m``."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further columns that tell runs apart, such as the learning rate."""

    @property
    def key(self) -> str:
        """Unique in the grid, and fit for a folder's name."""
        extra = "".join(f"-{k}={v}" for k, v in sorted(self.facts.items()))
        return f"{self.name}{extra}-seed{self.seed}".replace("/", "_").replace(" ", "_")


Collect = Callable[[Run, Path], Row]
"""Reads a finished run's folder: whatever is to be kept of it."""


def fit_command(configs: Sequence[str | Path], *options: str, verb: str = "fit") -> list[str]:
    """Arguments of one command with stacked configs.

    Args:
        configs: Files below ``configs/``, without the ending, or whole paths.
        options: Further arguments.
        verb: Of the command line.
    """
    words = [verb]
    for config in configs:
        path = Path(config) if Path(config).suffix else ROOT / "configs" / f"{config}.yaml"
        words += ["--config", str(path.resolve())]
    return [*words, *options]


def run_grid(
    runs: Sequence[Run],
    collect: Collect,
    results: Path,
    scratch: Path,
    *,
    jobs: int = 2,
    keep: bool = False,
) -> list[Row]:
    """Do what is still to be done, ``jobs`` at a time with one thread each.

    Args:
        runs: The grid.
        collect: What to keep of a run.
        results: JSON lines, one a run that is done.
        scratch: Where runs have their folders.
        jobs: Runs at once.
        keep: Leave the folders of finished runs (checkpoints and all).

    Returns:
        The rows of the grid's runs, in the grid's order.

    Raises:
        RuntimeError: A run failed; the end of its log is in the message. The others' rows stand.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    done = {row["key"]: row for row in read_rows(results)}
    todo = [run for run in runs if run.key not in done]
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/"))
    with (
        Progress(*columns, TextColumn("{task.total}"), TimeElapsedColumn()) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        bar = progress.add_task(results.parent.name, total=len(runs))
        progress.advance(bar, len(runs) - len(todo))
        waiting: set[Future[Row]] = {pool.submit(_do, run, collect, scratch, keep) for run in todo}
        failures = []
        while waiting:
            ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ended:
                error = future.exception()
                if error is not None:
                    failures.append(str(error))
                    progress.console.print(f"failed: {error}", markup=False)
                    continue
                row = future.result()
                done[row["key"]] = row
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                progress.console.print(f"done: {row['key']} in {row['minutes']:.1f} min")
                progress.advance(bar)
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(todo)} runs failed; first: {failures[0]}")
    return [done[run.key] for run in runs]


def read_rows(results: Path) -> list[Row]:
    """Rows of a results file; a last line that was cut off by a kill is left out."""
    return list(_whole_lines(results)) if results.exists() else []


def _whole_lines(results: Path) -> Iterator[Row]:
    for line in results.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _do(run: Run, collect: Collect, scratch: Path, keep: bool) -> Row:
    folder = scratch / run.key
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        for command in run.commands:
            words = list(command) if command[0] == "-m" else ["-m", "lightning_sd", *command]
            if subprocess.run(
                [sys.executable, *words],
                cwd=folder,
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            ).returncode:
                log.flush()
                tail = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
                raise RuntimeError(f"{run.key}: {tail}")
    minutes = (time.monotonic() - start) / 60
    row = {"key": run.key, "name": run.name, "seed": run.seed, **run.facts}
    row |= {"minutes": round(minutes, 3), **collect(run, folder)}
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return row
