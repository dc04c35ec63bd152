"""Run a grid of trainings through the command line; an interrupted grid continues where it stopped.

A study is a list of :class:`Run`. Each run is `fit` (and `test`, if the study selects checkpoints)
in its own folder, with the commands that a user would type. A finished run adds one line to
``results.jsonl``. A run without a line is repeated, so the grid can be killed at any time.

Large result files are committed compressed. To add new rows to the compressed file:

    python -m benchmarks.grid benchmarks/methods/raw/lab.jsonl
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import runpy
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
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
    """Arguments of ``python -m lightning_sd``, run one after another in the run's folder. If the
    first word is ``-m``, the second names the module that runs instead."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Further columns that identify the run, such as the learning rate."""

    @property
    def key(self) -> str:
        """Name that is unique in the grid and valid as a folder name."""
        extra = "".join(f"-{k}={v}" for k, v in sorted(self.facts.items()))
        return f"{self.name}{extra}-seed{self.seed}".replace("/", "_").replace(" ", "_")


Collect = Callable[[Run, Path], Row]
"""Reads a finished run's folder and returns the columns to store."""


def fit_command(configs: Sequence[str | Path], *options: str, verb: str = "fit") -> list[str]:
    """Build the arguments of one command with stacked configs.

    Args:
        configs: Names of files in ``configs/`` without the suffix, or paths.
        options: Further arguments.
        verb: Subcommand of the command line.
    """
    words = [verb]
    for config in configs:
        path = Path(config) if Path(config).suffix else ROOT / "configs" / f"{config}.yaml"
        words += ["--config", str(path.resolve())]
    return [*words, *options]


_REAPING = threading.Lock()
"""Held while exit codes are read. Starting a process reads the codes of all that have ended, and
the second of two threads that read the same one sees a failure."""


def run_grid(
    runs: Sequence[Run],
    collect: Collect,
    results: Path,
    scratch: Path,
    *,
    jobs: int = 2,
    keep: bool = False,
) -> list[Row]:
    """Run the cells that have no row yet, ``jobs`` at a time, one thread each.

    Args:
        runs: The grid.
        collect: Reads the columns to store from a run's folder.
        results: JSON lines file, one line per finished run.
        scratch: Parent of the runs' folders.
        jobs: Number of concurrent runs.
        keep: Keep the folders of finished runs, checkpoints included.

    Returns:
        The rows of the grid's runs, in the grid's order.

    Raises:
        RuntimeError: A run failed. The message holds the end of its log; rows of finished runs are
            kept.
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
        waiting: set[Future[Row]] = {
            pool.submit(_execute, run, collect, scratch, keep) for run in todo
        }
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
    """Read the rows of a results file: those of ``<results>.gz`` first, then those of ``results``.

    Args:
        results: Path without ``.gz``; either file may be missing. A last line that a kill cut off
            is skipped.
    """
    packed = packed_path(results)
    texts = [gzip.decompress(packed.read_bytes()).decode("utf-8")] if packed.exists() else []
    if results.exists():
        texts.append(results.read_text(encoding="utf-8"))
    return [row for text in texts for row in _parse_lines(text)]


def packed_path(results: Path) -> Path:
    """Return the path of the compressed part of a results file."""
    return results.with_name(f"{results.name}.gz")


def pack_rows(results: Path) -> Path:
    """Move all rows of a results file into ``<results>.gz`` and delete the plain file."""
    text = "".join(json.dumps(row) + "\n" for row in read_rows(results))
    packed = packed_path(results)
    part = packed.with_suffix(".part")
    # Without a time stamp the same rows give the same bytes.
    part.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0))
    part.replace(packed)
    results.unlink(missing_ok=True)
    return packed


def _parse_lines(text: str) -> Iterator[Row]:
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _execute(run: Run, collect: Collect, scratch: Path, keep: bool) -> Row:
    folder = scratch / run.key
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.monotonic()
    log = folder / "log.txt"
    for command in run.commands:
        words = command[1:] if command[0] == "-m" else ["lightning_sd", *command]
        process = _start_server().Process(target=_run_module, args=(words, folder, log))
        with _REAPING:
            process.start()
        connection.wait([process.sentinel])
        with _REAPING:
            process.join()
        if process.exitcode:
            tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{run.key}: {tail}")
    minutes = (time.monotonic() - start) / 60
    row = {"key": run.key, "name": run.name, "seed": run.seed, **run.facts}
    row |= {"minutes": round(minutes, 3), **collect(run, folder)}
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return row


def _start_server() -> ForkServerContext:
    """Return the server that has imported everything; each run is a fork of it.

    A run would else spend up to a fifth of its time on imports.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["benchmarks.preload"])
    return server


def _run_module(words: Sequence[str], folder: Path, log: Path) -> None:
    """Run a module as ``python -m`` does, in a folder, with its output at the end of a log."""
    os.chdir(folder)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compress results files.")
    parser.add_argument("results", type=Path, nargs="+", help="paths without .gz")
    for results in parser.parse_args().results:
        print(pack_rows(results))


if __name__ == "__main__":
    main()
