"""Reproduce the README's table: the quickstart and two other methods, over several seeds.

    python -m benchmarks.quickstart.run --seeds 1 2 3

Each run is the README's command with another seed, in its own folder. The table shows the mean over
seeds and their range; ``results.csv`` holds every run. Time is processor time, which other work on
the machine affects less than elapsed time.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CONFIGS = HERE.parent.parent / "configs"
METHODS = {
    "step-aligned critique": ("quickstart",),
    "reference solution": ("quickstart", "reference"),
    "GRPO": ("quickstart", "grpo"),
}
COLUMNS = (
    "method",
    "seed",
    "steps",
    "cpu_minutes",
    "when",
    "avg@12",
    "pass@12",
    "maj@12",
    "length",
)


def run(method: str, seed: int) -> list[dict[str, object]]:
    """Train once and return the rows before and after training."""
    options = [w for name in METHODS[method] for w in ("--config", str(CONFIGS / f"{name}.yaml"))]
    options += [f"--seed_everything={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        start = measure_cpu_seconds()
        subprocess.run(
            [sys.executable, "-m", "lightning_sd", "fit", *options],
            check=True,
            cwd=folder,
        )
        minutes = (measure_cpu_seconds() - start) / 60
        found = json.loads((Path(folder) / "out/quickstart/before_after.json").read_text())
    facts = {"method": method, "seed": seed, "steps": found["steps"]}
    facts["cpu_minutes"] = round(minutes, 2)
    return [{**facts, "when": when, **found[when]} for when in ("before", "after")]


def measure_cpu_seconds() -> float:
    """Return the processor seconds, user and system, of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_rows(path: Path) -> list[dict[str, object]]:
    """Read the rows of all runs; none if the file does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [dict(row) for row in csv.DictReader(file)]


def format_table(rows: list[dict[str, object]]) -> str:
    """Format means over seeds and the range of Avg@12 as Markdown."""
    lines = [
        "| | steps | seeds | Avg@12 | range | Pass@12 | Maj@12 | length | processor minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = [("untrained", "before", None)] + [(m, "after", m) for m in METHODS]
    for name, when, method in kinds:
        own = [r for r in rows if r["when"] == when and method in (None, r["method"])]
        if not own:
            continue
        mean = {
            c: statistics.mean(float(str(r[c])) for r in own)
            for c in COLUMNS
            if c not in ("method", "when")
        }
        each = [100 * float(str(r["avg@12"])) for r in own]
        minutes = f"{mean['cpu_minutes']:.1f}" if method else ""
        lines.append(
            f"| {name} | {own[0]['steps'] if method else 0} "
            f"| {len({str(r['seed']) for r in own})} | {100 * mean['avg@12']:.1f} "
            f"| {min(each):.1f} to {max(each):.1f} | {100 * mean['pass@12']:.1f} "
            f"| {100 * mean['maj@12']:.1f} | {mean['length']:.1f} "
            f"| {minutes} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args = parser.parse_args()
    path = HERE / "results.csv"
    # Other methods and seeds keep their rows.
    rows = [
        row
        for row in read_rows(path)
        if row["method"] not in args.methods or int(str(row["seed"])) not in args.seeds
    ]
    for method in args.methods:
        for seed in args.seeds:
            rows += run(method, seed)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    print(format_table(rows))
    (HERE / "results.md").write_text(format_table(rows) + "\n")


if __name__ == "__main__":
    main()
