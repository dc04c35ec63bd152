"""Run all parts of the kit, each in its own process, and write one JSON and one table.

    python -m benchmarks.accelerator.run             # at most ten minutes
    python -m benchmarks.accelerator.run --small     # on a CPU, without TRL and Liger

A part that fails or runs out of time is in the results with its reason; the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accelerator.device import PREFIX, describe_machine
from benchmarks.accelerator.report import format_report

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 580
"""Seconds for all parts."""


class Part(NamedTuple):
    """One process of the kit."""

    name: str
    module: str
    options: tuple[str, ...]
    seconds: int
    """Time after which it is ended."""


def list_parts(out: Path, *, small: bool) -> list[Part]:
    """Return the parts, the most important first."""
    steps = [
        Part(f"step {shape} {how}", "step", ("--how", how, "--shape", shape), 110)
        for shape in (("tiny",) if small else ("0.5b", "1.7b"))
        for how in (("ours",) if small else ("ours", "trl"))
    ]
    option = ("--small",) if small else ()
    trace = ("--shape", "tiny" if small else "0.5b", "--profile", str(out / "trace.json"))
    return [
        *(Part(name, name, option, 90) for name in ("numerics", "paths", "loss")),
        *steps,
        Part("profile", "step", trace, 90),
    ]


def run_part(part: Part, out: Path, seconds: float) -> dict[str, Any]:
    """Run one part, and return its result or the reason why there is none."""
    log = out / f"{part.name.replace(' ', '-')}.log"
    command = [sys.executable, "-m", f"benchmarks.accelerator.{part.module}", *part.options]
    begun, status = time.monotonic(), "ok"
    with log.open("w") as errors:
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return {"status": f"ended after {seconds:.0f} s", "log": log.name}
    lines = [line for line in done.stdout.splitlines() if line.startswith(PREFIX)]
    if done.returncode or not lines:
        last = (log.read_text().strip().splitlines() or ["no message"])[-1]
        status = f"exit code {done.returncode}: {last[:200]}"
    result = json.loads(lines[-1].removeprefix(PREFIX)) if lines else {}
    return {"status": status, "wall_seconds": round(time.monotonic() - begun, 1), **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes, without TRL")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "accelerator")
    args = parser.parse_args()
    out = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    end = time.monotonic() + LIMIT
    results: dict[str, Any] = {"machine": describe_machine(), "small": args.small, "parts": {}}
    for part in list_parts(out, small=args.small):
        left = end - time.monotonic()
        if left < 10:
            results["parts"][part.name] = {"status": "not run: the time was over"}
        else:
            results["parts"][part.name] = run_part(part, out, min(left, part.seconds))
        print(f"{part.name}: {results['parts'][part.name]['status']}", flush=True)
        # Written after each part: a machine that is taken away leaves what was measured.
        (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (out / "results.md").write_text(format_report(results) + "\n")
    print(format_report(results))


if __name__ == "__main__":
    main()
