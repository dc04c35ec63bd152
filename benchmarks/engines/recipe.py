"""Train the quickstart with each sampler over several seeds, and compare where the runs end.

    python -m benchmarks.engines.recipe --seeds 1 2 3

Runs where vLLM is installed. The student is the embedded solver with heads that vLLM serves
(:mod:`benchmarks.engines.servable`); all else is ``configs/quickstart.yaml``. Each run adds its
rows to ``recipe.csv``; runs that are in it are not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COLUMNS = ("sampler", "seed", "steps", "minutes", "when", "avg@12", "pass@12", "maj@12", "length")
ENGINE = {"enforce_eager": True, "max_model_len": 512, "disable_log_stats": True}
SAMPLERS = {
    "TransformersSampler": {},
    "VLLMSampler": {"engine": ENGINE},
}


def run(sampler: str, seed: int) -> list[dict[str, object]]:
    """Train once and return the rows before and after training."""
    settings = {"max_new_tokens": 64, **SAMPLERS[sampler]}
    changes = {
        "model.init_args.model": {"class_path": "PretrainedModel", "init_args": {"name": "solver"}},
        "model.init_args.sampler": {"class_path": sampler, "init_args": settings},
        "seed_everything": seed,
        "trainer.max_steps": 100,
        "model.init_args.optimizer.init_args.lr": 3e-4,
    }
    with tempfile.TemporaryDirectory() as folder:
        module = ("-m", "benchmarks.engines.servable", f"{folder}/solver")
        subprocess.run([sys.executable, *module], check=True, cwd=ROOT)
        options = [f"--{name}={json.dumps(value)}" for name, value in changes.items()]
        start = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "lightning_sd", "fit", "--config", "quickstart", *options],
            check=True,
            cwd=folder,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"},
        )
        minutes = round((time.monotonic() - start) / 60, 1)
        report = json.loads((Path(folder) / "out/quickstart/before_after.json").read_text())
    facts = {"sampler": sampler, "seed": seed, "steps": report["steps"], "minutes": minutes}
    return [{**facts, "when": when, **report[when]} for when in ("before", "after")]


def format_table(rows: list[dict[str, str]]) -> str:
    """Format the mean and the range of Avg@12 over seeds as Markdown."""
    lines = [
        "| sampler | seeds | untrained Avg@12 | Avg@12 | range | length |",
        "|---|---|---|---|---|---|",
    ]
    for sampler in SAMPLERS:
        own = [row for row in rows if row["sampler"] == sampler]
        scores = {
            when: [100 * float(row["avg@12"]) for row in own if row["when"] == when]
            for when in ("before", "after")
        }
        if not own:
            continue
        after = scores["after"]
        length = statistics.mean(float(row["length"]) for row in own if row["when"] == "after")
        lines.append(
            f"| `{sampler}` | {len(after)} | {statistics.mean(scores['before']):.1f} "
            f"| {statistics.mean(after):.1f} | {min(after):.1f} to {max(after):.1f} "
            f"| {length:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    path = HERE / "recipe.csv"
    rows: list[dict[str, object]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    known = {(row["sampler"], str(row["seed"])) for row in rows}
    for seed in args.seeds:
        for sampler in SAMPLERS:
            if (sampler, str(seed)) in known:
                continue
            rows += run(sampler, seed)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    print(format_table([{key: str(value) for key, value in row.items()} for row in rows]))


if __name__ == "__main__":
    main()
