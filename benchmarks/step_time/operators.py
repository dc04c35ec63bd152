"""Show which operators the time of our step goes to.

    python -m benchmarks.step_time.operators --shapes random32k lab

Profiles the second step of each shape in a process of its own, on one thread, and writes the
seconds per kind of operator to ``operators.csv`` and a table to ``operators.md``.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "_linear_pointwise", "linear"),
    "attention": (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "softmax": ("_softmax", "_log_softmax", "logsumexp", "exp", "exp_"),
    "copies": (
        *(
            "copy_",
            "cat",
            "index",
            "index_select",
            "gather",
            "clone",
            "fill_",
            "zero_",
            "embedding",
        ),
        *("_reorder_linear_weight", "index_put_", "_index_put_impl_", "scatter_"),
    ),
}
"""Operators by kind, without their namespace; all others are ``arithmetic``."""
COLUMNS = ("processor", "shape", *KINDS, "arithmetic", "outside operators", "step")


def find_kind(name: str) -> str:
    """Return the kind of an operator such as ``aten::mm``."""
    own = name.rpartition("::")[2]
    return next((kind for kind, names in KINDS.items() if own in names), "arithmetic")


def profile(shape_name: str, loss: str) -> dict[str, float]:
    """Return the processor seconds of a step by kind of operator."""
    import lightning.pytorch as pl
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as make_profiler

    from benchmarks.step_time.ours import measure
    from benchmarks.step_time.shapes import SHAPES

    profiler = make_profiler(activities=[ProfilerActivity.CPU])
    ends: list[float] = []

    class Profile(pl.Callback):
        """Profiles from the end of the first step to the end of the second."""

        def on_train_batch_end(
            self, trainer: Any, module: Any, out: Any, batch: Any, i: int
        ) -> None:
            ends.append(time.perf_counter())
            profiler.stop() if i else profiler.start()

    step = measure(SHAPES[shape_name], loss, "sibling", 1, 1, Profile())["steps"][0]
    # The profiler counts elapsed time, of which other processes had a part.
    share = step / (ends[1] - ends[0])
    seconds = dict.fromkeys((*KINDS, "arithmetic"), 0.0)
    for event in profiler.key_averages():
        if "::" in event.key and not event.key.startswith("profiler::"):
            seconds[find_kind(event.key)] += share * event.self_cpu_time_total / 1e6
    return {**seconds, "outside operators": step - sum(seconds.values()), "step": step}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows; none if the file does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def format_table(rows: list[dict[str, str]]) -> str:
    """Format seconds and shares of the step as Markdown."""
    parts = COLUMNS[2:-1]
    lines = [
        "| processor | shape | step, s | " + " | ".join(parts) + " |",
        "|---" * (3 + len(parts)) + "|",
    ]
    for row in rows:
        step = float(row["step"])
        cells = [f"{float(row[p]):.2f} ({float(row[p]) / step:.0%})" for p in parts]
        head = (row["processor"], row["shape"], f"{step:.2f}")
        lines.append("| " + " | ".join((*head, *cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    from benchmarks.step_time.clock import name_processor

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="*", default=["random32k", "lab", "smollm2", "gemma"])
    parser.add_argument("--loss", default="js")
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    path = args.folder / "operators.csv"
    if args.one:
        found = profile(args.shapes[0], args.loss)
        rounded = {name: round(value, 4) for name, value in found.items()}
        row = {"processor": name_processor(), "shape": args.shapes[0], **rounded}
        place = (row["processor"], row["shape"])
        kept = [old for old in read_rows(path) if (old["processor"], old["shape"]) != place]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows([*kept, row])
        return
    environment = {**os.environ, "STEP_TIME_SHARED": "1", "THP_MEM_ALLOC_ENABLE": "1"}
    for shape in args.shapes:
        command = [sys.executable, "-m", "benchmarks.step_time.operators", "--one"]
        command += ["--shapes", shape, "--loss", args.loss, "--folder", str(args.folder)]
        subprocess.run(command, check=True, env=environment)
    table = format_table(read_rows(path))
    (args.folder / "operators.md").write_text(f"# Operators of a step\n\n{table}\n")
    print(table)


if __name__ == "__main__":
    main()
