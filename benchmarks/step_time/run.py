"""Run the benchmark: every measurement in its own process, ours and TRL's in turn.

    python -m benchmarks.step_time.run            # everything, about 80 minutes on two quiet cores
    python -m benchmarks.step_time.run --quick    # one process per case, fewer cases: about 30
    python -m benchmarks.step_time.run --tiny     # test the scripts; writes to out/ only
    python -m benchmarks.step_time.run --shared   # processor seconds of one thread, into shared.csv

Each process adds a row to ``results.csv`` when it ends. An interrupted run (or one with
``--minutes``) continues where it stopped. Failed rows are repeated, disturbed rows on demand
(``--redo-above 0.15``); the less disturbed row is kept. ``--fresh`` deletes all rows first. At the
end, and with ``--report`` alone, ``results.md`` and the plots are written from the rows.

This process does not import torch: a child holds a copy of its parent's memory until it starts its
own program, and that copy would count in the child's peak.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from benchmarks.step_time.clock import name_processor
from benchmarks.step_time.plan import PACKAGE, Case, plan, plan_shared
from benchmarks.step_time.shapes import ROOT, WORK

HERE = Path(__file__).parent
COLUMNS = (
    *("key", "round", "status", "wall_seconds", "step_seconds", "tokens_per_second", "peak_mib"),
    *("load", "commit", "processor", "facts", "result"),
)
PREFIX = "RESULT "
SHARED = "STEP_TIME_SHARED"
"""Environment variable that :mod:`.clock` reads."""
DISTURBED = 0.15
"""Rows are marked if others used more cores than this. Steps of many small operations suffer most:
each operation waits for both threads, and a thread without a core waits for milliseconds."""


def main() -> None:
    args = _arguments()
    folder = WORK / "tiny" if args.tiny else HERE
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("shared.csv" if args.shared else "results.csv")
    os.environ[SHARED] = str(int(args.shared))
    if args.fresh:
        path.unlink(missing_ok=True)
    try:
        if not args.report:
            run_all(args, path)
    except KeyboardInterrupt:
        print("Stopped; run again to go on from here.")
    finally:
        report(path)


def run_all(args: argparse.Namespace, path: Path) -> None:
    """Run the missing processes until all are done or the time is over."""
    everything = (
        plan_shared(args.steps, tiny=args.tiny)
        if args.shared
        else plan(args.steps, quick=args.quick, tiny=args.tiny)
    )
    wanted = [(r, c) for r, c in everything if args.only in c.key]
    here = [row for row in rows(path) if good(row) and row["processor"] == name_processor()]
    walls = {row["key"]: float(row["wall_seconds"]) for row in here}
    done = {(row["key"], int(row["round"])) for row in here if others(row) <= args.redo_above}
    todo = [(r, c) for r, c in wanted if (c.key, r) not in done]
    left = [walls.get(case.key, case.seconds) for _, case in todo]
    print(
        f"{len(todo)} of {len(wanted)} processes to run, about {sum(left) / 60:.0f} minutes on a "
        f"quiet machine. Load now: {os.getloadavg()[0]:.1f}."
    )
    begun = time.monotonic()
    for number, (round_, case) in enumerate(todo):
        passed = time.monotonic() - begun
        if args.minutes and passed + left[number] > 60 * args.minutes:
            print(f"{args.minutes:g} minutes are over; run again to go on from here.")
            return
        rest = sum(left[number:]) / 60
        print(f"[{number + 1}/{len(todo)}, {rest:.0f} min left] round {round_}: {case.key}")
        row = run_case(case, round_)
        add(path, row)
        print(f"    {brief(row)}", flush=True)
        if case.part == "check" and not good(row):
            sys.exit("Ours and TRL do not compute the same loss: nothing would be comparable.")


def run_case(case: Case, round_: int) -> dict[str, Any]:
    """Run one process and return its row."""
    load = os.getloadavg()[0]
    log = WORK / "logs" / f"{case.part}-{zlib.crc32(case.key.encode())}-{round_}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    threads = "1" if os.environ.get(SHARED) == "1" else "2"
    environment = {**os.environ, **dict.fromkeys(names, threads), "HF_HUB_OFFLINE": "1"}
    environment["THP_MEM_ALLOC_ENABLE"] = str(int(case.huge))
    begun = time.monotonic()
    status, output = "ok", ""
    try:
        with log.open("w") as errors:
            found = subprocess.run(
                [sys.executable, "-m", f"{PACKAGE}.{case.module}", *case.arguments],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=max(1800.0, 20 * case.seconds),
            )
        output = found.stdout
        if found.returncode:
            status = f"exit code {found.returncode}, see {log.relative_to(ROOT)}"
    except subprocess.TimeoutExpired:
        status = "timeout"
    lines = [line for line in output.splitlines() if line.startswith(PREFIX)]
    if status == "ok" and not lines:
        status = f"no result, see {log.relative_to(ROOT)}"
    result = json.loads(lines[-1].removeprefix(PREFIX)) if lines else {}
    return {
        "key": case.key,
        "round": round_,
        "status": status,
        "wall_seconds": round(time.monotonic() - begun, 1),
        "step_seconds": _median(result),
        "tokens_per_second": result.get("tokens_per_second", ""),
        "peak_mib": result.get("peak_mib", ""),
        "load": round(load, 2),
        "commit": commit(),
        "processor": name_processor(),
        "facts": json.dumps({"part": case.part, **dict(case.facts)}),
        "result": json.dumps(result),
    }


def _median(result: dict[str, Any]) -> float | str:
    steps = sorted(result.get("steps") or [result.get("seconds", result.get("floor", -1.0))])
    middle = steps[len(steps) // 2] if len(steps) % 2 else sum(steps[len(steps) // 2 - 1 :][:2]) / 2
    return "" if middle < 0 else round(middle, 4)


def brief(row: dict[str, Any]) -> str:
    """Summarize a row in one line."""
    if not good(row):
        return f"FAILED: {row['status']}"
    facts = [f"{row['wall_seconds']} s in all"]
    facts += [f"{row['step_seconds']} s"] if row["step_seconds"] != "" else []
    facts += [f"{row['peak_mib']} MiB"] if row["peak_mib"] != "" else []
    disturbed = " DISTURBED" if others(row) > DISTURBED else ""
    return ", ".join(facts) + f" (others used {others(row)} cores){disturbed}"


def good(row: dict[str, Any]) -> bool:
    return bool(row["status"] == "ok")


def others(row: dict[str, Any]) -> float:
    """Return the number of cores that other processes used during the run."""
    return float(json.loads(row["result"]).get("others", "inf"))


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add(path: Path, row: dict[str, Any]) -> None:
    """Add a row; of two rows of one process, keep the one that succeeded or was disturbed less."""

    def find_place(row: dict[str, Any]) -> tuple[str, ...]:
        return (row["key"], str(row["round"]), row["processor"])

    place = find_place(row)
    kept = [old for old in rows(path) if find_place(old) != place]
    for old in rows(path):
        better = good(old) and (not good(row) or others(old) < others(row))
        row = old if find_place(old) == place and better else row
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([*kept, row])
    part.rename(path)


def commit() -> str:
    """Return the measured commit, with a mark if the package has uncommitted changes."""
    name = _git("rev-parse", "--short", "HEAD")
    return name + ("+" if _git("status", "--porcelain", "--", "lightning_sd") else "")


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def report(path: Path) -> None:
    """Write the tables in a separate process, because it imports matplotlib."""
    if rows(path):
        command = [sys.executable, "-m", f"{PACKAGE}.report", "--folder", str(path.parent)]
        subprocess.run(command, cwd=ROOT, check=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one process per case, fewer cases")
    parser.add_argument("--fresh", action="store_true", help="delete existing rows first")
    parser.add_argument("--tiny", action="store_true", help="replace all shapes with a tiny one")
    parser.add_argument(
        "--shared", action="store_true", help="count processor seconds of one thread"
    )
    parser.add_argument("--steps", type=int, default=1, help="measured steps per process")
    parser.add_argument("--only", default="", help="only cases with this text in the key")
    parser.add_argument(
        "--minutes", type=float, help="start no process that would end after this time"
    )
    parser.add_argument(
        "--redo-above",
        type=float,
        default=float("inf"),
        metavar="CORES",
        help="repeat rows during which others used more cores than this (0.15 is strict)",
    )
    parser.add_argument("--report", action="store_true", help="only write the report")
    return parser.parse_args()


if __name__ == "__main__":
    main()
