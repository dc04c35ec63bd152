"""Run a part of the alignment map; an interrupted part continues where it stopped.

    python -m benchmarks.alignment_map.run --part admission --jobs 2
    python -m benchmarks.alignment_map.run --part main --jobs 2

Parts, in the order of the protocol: ``admission`` pre-trains the bases and tests that they read
their contexts; ``main`` chooses learning rates, then trains the main conditions; the other
parts train further conditions, bases and seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.alignment_map import study
from benchmarks.grid import Row, Run, read_rows, run_grid


def run_part(part: str, bases: Sequence[str], scratch: Path, jobs: int) -> None:
    """Run the missing cells of one part on some bases."""
    study.RESULTS.mkdir(exist_ok=True)
    if part == "admission":
        _teach_and_probe(bases, scratch, jobs)
        return
    admitted = study.select_admitted(read_rows(study.RESULTS / "admission.jsonl"))
    chosen = study.PARTS[part]
    bases = [base for base in chosen.bases if base in bases and base in admitted]
    if not bases:
        raise SystemExit(
            f"--bases: none of them is both admitted and in part {part}, which runs on "
            f"{', '.join(chosen.bases)}."
        )
    untrained = study.untrained_runs(study.find_searched(bases), study.SEEDS[:1], scratch)
    starts = _run(untrained, "runs", scratch, jobs)
    searches = study.search_runs(chosen.conditions, bases, scratch)
    search = _run(searches, "search", scratch, jobs)
    rates = study.choose_rates(search, {row["base"]: row for row in starts})
    _run(study.untrained_runs(bases, chosen.seeds, scratch), "runs", scratch, jobs)
    _run(study.study_runs(chosen, bases, rates, scratch), "runs", scratch, jobs)


def _teach_and_probe(bases: Sequence[str], scratch: Path, jobs: int) -> None:
    """Pre-train the bases with what they go on from, and test that they read their contexts."""
    needed: set[str | None] = {study.find_start(base) for base in bases}
    needed |= {study.find_start(start) for start in needed if start is not None}
    # A reader goes on from its trunk, so they are trained one after another.
    for name in study.TRUNKS:
        if name in needed:
            _run([study.teach_run(name, scratch)], "bases", scratch, 1)
    _run([study.teach_run(name, scratch) for name in bases], "bases", scratch, jobs)
    _run(study.admission_runs(bases, scratch), "admission", scratch, jobs)


def _run(runs: Sequence[Run], file: str, scratch: Path, jobs: int) -> list[Row]:
    results = study.RESULTS / f"{file}.jsonl"
    return run_grid(runs, study.collect, results, scratch / file, jobs=jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("admission", *study.PARTS), default="admission")
    parser.add_argument("--bases", nargs="+", choices=study.BASES, default=list(study.BASES))
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--scratch", type=Path, default=Path("out/alignment_map"))
    args = parser.parse_args()
    run_part(args.part, args.bases, args.scratch.resolve(), args.jobs)


if __name__ == "__main__":
    main()
