"""Show which operators the time of our step goes to.

    python -m benchmarks.step_time.operators --shapes random32k lab

Profiles the second step of each shape in a process of its own, on one thread, and writes the
seconds per phase and kind of operator to ``operators.csv`` and tables to ``operators.md``.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.step_time.clock import PHASE_PREFIX, PHASES, name_processor
from benchmarks.step_time.shapes import SHAPES, Context, Shape

HERE = Path(__file__).parent
KINDS = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm", "_linear_pointwise", "linear"),
    "attention": (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "softmax": ("_softmax", "_log_softmax", "logsumexp", "exp", "exp_"),
    "copies": (
        *("copy_", "cat", "index", "index_select", "gather", "clone", "fill_", "zero_"),
        *("embedding", "_reorder_linear_weight", "index_put_", "_index_put_impl_", "scatter_"),
    ),
}
"""Operators by kind, without their namespace; all others are ``arithmetic``."""
PARTS = (*KINDS, "arithmetic", "outside operators")
COLUMNS = ("processor", "shape", "phase", *PARTS, "seconds")
WHOLE = "step"
"""The phase of rows for the whole step."""


class Operator(NamedTuple):
    """One operator in one phase of a step, without the operators that it calls."""

    phase: str
    name: str
    """Without its namespace, such as ``mm``."""
    calls: int
    seconds: float


def find_kind(name: str) -> str:
    """Return the kind of an operator such as ``mm``."""
    return next((kind for kind, names in KINDS.items() if name in names), "arithmetic")


def find_phase(event: Any) -> str:
    """Return the phase of a profiled call from the calls around it."""
    while event is not None:
        if event.name.startswith(PHASE_PREFIX):
            return str(event.name.removeprefix(PHASE_PREFIX))
        if event.name.startswith("Optimizer.step"):
            return "optimizer"
        if event.name.startswith("autograd::engine"):
            return "backward"
        event = event.cpu_parent
    return "other"


def profile(
    shape: Shape, loss: str, context: Context = "sibling"
) -> tuple[list[Operator], dict[str, float]]:
    """Profile a step.

    Returns:
        The operators, and the processor seconds of each phase and of the whole step.
    """
    import lightning.pytorch as pl
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as make_profiler

    from benchmarks.step_time.ours import measure

    profiler = make_profiler(activities=[ProfilerActivity.CPU])
    ends: list[float] = []

    class Profile(pl.Callback):
        """Profiles from the end of the first step to the end of the second."""

        def on_train_batch_end(
            self, trainer: Any, module: Any, out: Any, batch: Any, i: int
        ) -> None:
            ends.append(time.perf_counter())
            profiler.stop() if i else profiler.start()

    result = measure(shape, loss, context, 1, 1, Profile())
    (step,), (phases,) = result["steps"], result["phases"]
    # The profiler counts elapsed time, of which other processes had a part.
    share = step / (ends[1] - ends[0])
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for event in profiler.events():
        space, _, name = event.name.rpartition("::")
        if space and space != "profiler" and not space.startswith("autograd"):
            found = sums[find_phase(event), name]
            found[0] += 1
            found[1] += share * event.self_cpu_time_total / 1e6
    operators = [Operator(*place, int(n), seconds) for place, (n, seconds) in sums.items()]
    return operators, {**phases, "other": step - sum(phases.values()), WHOLE: step}


def sum_kinds(
    operators: Sequence[Operator], phases: dict[str, float]
) -> list[dict[str, str | float]]:
    """Sum the operators to one row per phase, and one for the whole step."""
    rows: list[dict[str, str | float]] = []
    for phase, whole in phases.items():
        seconds = dict.fromkeys(PARTS, 0.0)
        for operator in operators:
            if phase in (operator.phase, WHOLE):
                seconds[find_kind(operator.name)] += operator.seconds
        seconds["outside operators"] = whole - sum(seconds.values())
        rounded = {name: round(value, 4) for name, value in seconds.items()}
        rows.append({"phase": phase, **rounded, "seconds": round(whole, 4)})
    return rows


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows; none if the file does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def format_table(rows: Sequence[dict[str, str]], first: Sequence[str]) -> str:
    """Format seconds and shares as Markdown, after the columns named in ``first``."""
    lines = [
        f"| {' | '.join(first)} | seconds | {' | '.join(PARTS)} |",
        "|---" * (1 + len(first) + len(PARTS)) + "|",
    ]
    for row in rows:
        whole = float(row["seconds"])
        cells = [f"{float(row[p]):.2f} ({float(row[p]) / (whole or 1):.0%})" for p in PARTS]
        lines.append(f"| {' | '.join([*(row[c] for c in first), f'{whole:.2f}', *cells])} |")
    return "\n".join(lines)


def format_report(rows: Sequence[dict[str, str]]) -> str:
    """Format the table of whole steps and the table of their phases."""
    whole = [row for row in rows if row["phase"] == WHOLE]
    phases = [row for row in rows if row["phase"] in PHASES]
    tables = [format_table(whole, ("processor", "shape"))]
    tables.append(format_table(phases, ("processor", "shape", "phase")))
    return "# Operators of a step\n\n" + "\n\n## Phases\n\n".join(tables) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", default=["random32k", "lab", "smollm2", "gemma"])
    parser.add_argument("--loss", default="js")
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    path = args.folder / "operators.csv"
    if args.one:
        head = {"processor": name_processor(), "shape": args.shapes[0]}
        found = [{**head, **row} for row in sum_kinds(*profile(SHAPES[args.shapes[0]], args.loss))]
        kept = [row for row in read_rows(path) if any(row[k] != head[k] for k in head)]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows([*kept, *found])
        return
    environment = {**os.environ, "STEP_TIME_SHARED": "1", "THP_MEM_ALLOC_ENABLE": "1"}
    for shape in args.shapes:
        command = [sys.executable, "-m", "benchmarks.step_time.operators", "--one"]
        command += ["--shapes", shape, "--loss", args.loss, "--folder", str(args.folder)]
        subprocess.run(command, check=True, env=environment)
    (args.folder / "operators.md").write_text(format_report(read_rows(path)))


if __name__ == "__main__":
    main()
