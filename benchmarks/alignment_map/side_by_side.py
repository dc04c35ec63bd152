"""Train with a critique, with a reference and by GRPO, side by side: three minutes on two cores.

    python -m benchmarks.alignment_map.side_by_side

The base comes with this folder, so nothing is pre-trained. All cells are cells of the map, with its
learning rates; ``--seed`` draws other questions and attempts. Rows are written to ``--out``, and an
interrupted run continues there.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.alignment_map import study
from benchmarks.feedback_alignment.rows import read_accuracy
from benchmarks.grid import Row, Run, read_rows, run_grid

BASE = "equal-1"
SHOWN = {
    "untrained": "untrained",
    "critique": "step-aligned critique",
    "random_order": "reference solution, another order of steps",
    "grpo": "GRPO",
}


def list_runs(seed: int) -> list[Run]:
    """List the untrained base and one training of each method."""
    search, starts = (read_rows(study.RESULTS / f"{name}.jsonl") for name in ("search", "runs"))
    first = {
        row["base"]: row
        for row in starts
        if (row["name"], row["seed"]) == (study.UNTRAINED, study.SEEDS[0])
    }
    rates = study.choose_rates(search, first)
    part = study.Part([name for name in SHOWN if name != study.UNTRAINED], [BASE], [seed])
    untrained = study.untrained_runs(part.bases, part.seeds, study.HERE)
    return untrained + study.study_runs(part, part.bases, rates, study.HERE)


def format_table(rows: Sequence[Row]) -> Iterator[str]:
    """Write accuracy along training and on the test questions, in percent."""
    trained = next(row["curve"] for row in rows if row["name"] != study.UNTRAINED)
    steps = [point["step"] for point in trained]
    yield f"| method | {' | '.join(f'step {step}' for step in steps)} | test |"
    yield f"|---|{'---|' * (len(steps) + 1)}"
    for name, label in SHOWN.items():
        (row,) = (row for row in rows if row["name"] == name)
        test = statistics.mean(float(answer["avg"]) for answer in row["test"])
        along = [f"{100 * read_accuracy(point):.0f}" for point in row["curve"]]
        # The untrained base has one validation, at step 0.
        cells = along if len(along) == len(steps) else [""] * len(steps)
        yield f"| {label} | {' | '.join(cells)} | {100 * test:.1f} |"


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
