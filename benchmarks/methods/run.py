"""Run the study of methods or a part of it; an interrupted run continues where it stopped.

    python -m benchmarks.methods.run                           # everything, then the report
    python -m benchmarks.methods.run --only lab --seeds 1      # one part, one seed

Parts: ``lab`` all text methods on the lab task; ``style`` the share of style in the signal;
``rare`` RESD against SDPO where success is rare; ``continual`` SDFT against SFT on two tasks in
sequence. README.md holds the protocol. EchoDistill and RCSD are separate studies in subfolders.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.grid import read_rows, run_grid
from benchmarks.methods import continual, lab, style
from benchmarks.methods.report import PARTS, write_report

RAW = lab.HERE / "raw"


def run_part(
    part: str, seeds: Sequence[int], methods: Sequence[str], raw: Path, scratch: Path, *, jobs: int
) -> None:
    """Run the missing cells of one part."""
    raw.mkdir(parents=True, exist_ok=True)
    results = raw / f"{part}.jsonl"
    if part == "style":
        if not read_rows(results):
            style.write_rows(results)
        return
    if part == "continual":
        runs, collect = continual.continual_runs(seeds), continual.collect
    else:
        collect = lab.collect
        runs = lab.lab_runs(methods, seeds) if part == "lab" else lab.rare_runs(seeds)
    run_grid(runs, collect, results, scratch / part, jobs=jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=list(lab.METHODS), choices=lab.METHODS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw results")
    parser.add_argument("--scratch", type=Path, default=Path("out/methods"))
    args = parser.parse_args()
    for part in [args.only] if args.only else PARTS:
        run_part(part, args.seeds, args.methods, args.raw, args.scratch.resolve(), jobs=args.jobs)
    print(write_report(args.raw, lab.HERE))


if __name__ == "__main__":
    main()
