"""Train with a critique, with a reference and by GRPO, side by side, on two bases of the map.

    python -m benchmarks.alignment_map.side_by_side

Takes about four minutes on two cores. The bases come with this folder, so nothing is pre-trained.
One base can follow a reference in another order of steps from the student's own steps, the other
cannot. All cells are cells of the map, with its learning rates; ``--seed`` draws
another order of questions and other attempts.
Rows are written to ``--out``, and an interrupted run continues there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.alignment_map import study
from benchmarks.grid import Row, Run, read_rows, run_grid

BASES = {"equal-1": "the teacher follows it", "q0-1": "the teacher cannot follow it"}
"""Bases, and what their teachers make of a reference in another order."""
SHOWN = {
    "untrained": "untrained",
    "critique": "step-aligned critique",
    "random_order": "reference solution in another order of steps",
    "grpo": "GRPO",
}


def list_runs(seed: int) -> list[Run]:
    """List the untrained bases and one training of each method on each."""
    search, starts = (read_rows(study.RESULTS / f"{name}.jsonl") for name in ("search", "runs"))
    first = {
        row["base"]: row
        for row in starts
        if (row["name"], row["seed"]) == (study.UNTRAINED, study.SEEDS[0])
    }
    rates = study.choose_rates(search, first)
    part = study.Part([name for name in SHOWN if name != study.UNTRAINED], list(BASES), [seed])
    untrained = study.untrained_runs(part.bases, part.seeds, study.HERE)
    return untrained + study.study_runs(part, part.bases, rates, study.HERE)


def format_table(rows: Sequence[Row]) -> Iterator[str]:
    """Write the accuracy on the test questions, in percent: one column per base."""
    yield f"| right answers to 200 test questions, % | {' | '.join(BASES.values())} |"
    yield f"|---|{'---|' * len(BASES)}"
    for name, label in SHOWN.items():
        found = {row["base"]: row["test"] for row in rows if row["name"] == name}
        tests = [statistics.mean(float(answer["avg"]) for answer in found[base]) for base in BASES]
        yield f"| {label} | {' | '.join(f'{100 * test:.1f}' for test in tests)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, one thread each")
    parser.add_argument("--out", type=Path, default=Path("out/side_by_side"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    out = args.out.resolve()
    rows = run_grid(list_runs(args.seed), study.collect, out / "rows.jsonl", out, jobs=args.jobs)
    print("\n".join(format_table(rows)))


if __name__ == "__main__":
    main()
