"""Run a part of the alignment map; an interrupted part continues where it stopped.

    python -m benchmarks.alignment_map.run --part admission --jobs 2
    python -m benchmarks.alignment_map.run --part main --jobs 2

Parts, in the order of the protocol: ``admission`` pre-trains the bases and tests that they read
their contexts; ``main`` chooses learning rates, then trains the main conditions; ``masked`` and
``further`` train the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.alignment_map import study
from benchmarks.grid import Row, Run, read_rows, run_grid


def run_part(part: str, scratch: Path, jobs: int) -> None:
    """Run the missing cells of one part."""
    study.RESULTS.mkdir(exist_ok=True)
    if part == "admission":
        trunks = [study.teach_run(name, scratch) for name in study.TRUNKS]
        # A reader goes on from its trunk, so they are trained one after another.
        for run in trunks:
            _run([run], "bases", scratch, 1)
        _run([study.teach_run(name, scratch) for name in study.BASES], "bases", scratch, jobs)
        runs = study.admission_runs(list(study.BASES), scratch)
        _run(runs, "admission", scratch, jobs)
        return
    admitted = study.select_admitted(read_rows(study.RESULTS / "admission.jsonl"))
    bases = [base for base in admitted if part != "masked" or base in study.MASKED_BASES]
    starts = _run(study.untrained_runs(admitted, scratch), "runs", scratch, jobs)
    search = _run(study.search_runs(list(study.MAIN), scratch), "search", scratch, jobs)
    rates = study.choose_rates(search, {row["base"]: row for row in starts})
    _run(study.study_runs(study.PARTS[part], bases, rates, scratch), "runs", scratch, jobs)


def _run(runs: Sequence[Run], file: str, scratch: Path, jobs: int) -> list[Row]:
    results = study.RESULTS / f"{file}.jsonl"
    return run_grid(runs, study.collect, results, scratch / file, jobs=jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("admission", *study.PARTS), default="admission")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--scratch", type=Path, default=Path("out/alignment_map"))
    args = parser.parse_args()
    run_part(args.part, args.scratch.resolve(), args.jobs)


if __name__ == "__main__":
    main()
