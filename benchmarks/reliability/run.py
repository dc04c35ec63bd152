"""Kill training runs, resume them, and compare them with the unbroken run bit for bit.

``python -m benchmarks.reliability.run`` goes through the whole matrix; ``--teachers``,
``--kills`` and the like choose a part. An interrupted run continues where it stopped.

Each run is killed up to four times and resumed each time. All processes are forked from this one,
which has trained a run itself, so that a kill costs half a second and not ten.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability.children import run_child
from benchmarks.reliability.killed import (
    BATCH_PHASES,
    PHASES,
    STEPS,
    TEACHERS,
    Case,
    Kill,
    train,
    write_tiny_model,
)

HERE = Path(__file__).parent
DROPOUTS = {"none": None, "0": 0.0, "0.2": 0.2}
KILLS_PER_RUN = 4
Place = tuple[str, float]
"""A phase and how often it is reached, or ``("moment", share of an unbroken run's time)``."""


def list_cases(options: argparse.Namespace) -> list[Case]:
    """List the chosen rows of the matrix."""
    axes = (
        options.teachers,
        options.accumulate,
        [DROPOUTS[name] for name in options.lora],
        options.overlap,
        options.workers,
    )
    return [Case(*values) for values in itertools.product(*axes)]


def choose_kills(case: Case, runs: int) -> list[list[Place]]:
    """Choose where each run of a case is killed: every phase in turn, and random moments."""
    rng = random.Random(case.name)

    def choose(phase: str) -> Place:
        if phase == "moment":
            return phase, rng.random()
        return phase, rng.randint(1, 2 * case.accumulate if phase in BATCH_PHASES else 2)

    phases = itertools.cycle([*PHASES, "moment"])
    return [[choose(next(phases)) for _ in range(KILLS_PER_RUN)] for _ in range(runs)]


def run_case(case: Case, model: str, kills: int, scratch: Path) -> dict[str, Any]:
    """Run a case unbroken and with kills, and compare.

    Returns:
        The number of runs, the number of kills by phase, and what differed in which run.
    """
    began = time.monotonic()
    _, expected = _run(case, model, scratch / "unbroken", [], 0.0)
    seconds = time.monotonic() - began
    done: Counter[str] = Counter()
    different = []
    for index, places in enumerate(choose_kills(case, kills)):
        folder = scratch / str(index)
        phases, found = _run(case, model, folder, places, seconds)
        done.update(phases)
        differing = [name for name in expected if expected[name] != found[name]]
        if differing:
            different.append({"kills": places, "different": differing})
        shutil.rmtree(folder)
        if done.total() >= kills:
            break
    return {"case": vars(case), "runs": index + 1, "kills": dict(done), "different": different}


def _run(
    case: Case, model: str, folder: Path, places: Sequence[Place], seconds: float
) -> tuple[list[str], dict[str, str]]:
    """Train to the end, with kills; return their phases and what the run leaves behind."""
    folder.mkdir(parents=True)
    output, done = folder / "output.txt", []
    for phase, number in places:
        moment = number * seconds if phase == "moment" else None
        kill = None if phase == "moment" else Kill(phase, int(number))
        if run_child(partial(train, case, model, folder, kill), output, moment):
            break
        done.append(phase)
    else:
        if not run_child(partial(train, case, model, folder, None), output):
            raise RuntimeError(f"{folder}: killed from outside.")
    return done, json.loads((folder / "digest.json").read_text())


def write_report(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write what was run as a table."""
    kills: Counter[str] = Counter()
    for row in rows:
        kills.update(row["kills"])
    runs, failed = sum(row["runs"] for row in rows), sum(len(row["different"]) for row in rows)
    lines = [
        "# Kill matrix",
        "",
        "Training runs are ended by SIGKILL and resumed from `last.ckpt`, each up to",
        f"{KILLS_PER_RUN} times. Weights, optimizer, teacher, schedule, context (a playbook) and",
        "logged values are compared with those of the unbroken run, bit by bit. Logged values are",
        "compared without the counts of the critique cache. `python -m benchmarks.reliability.run`",
        "runs the whole matrix; only what is in the tables was run.",
        "",
        f"The model is random and has one layer. A run has {STEPS} optimizer steps, an epoch's end",
        "within them, and a checkpoint after each step.",
        "",
        f"**{runs:,} runs, {kills.total():,} kills, {failed} runs that differ.**",
        "",
        "| killed at | " + " | ".join((*PHASES, "a random moment")) + " |",
        "|---|" + "---|" * (len(PHASES) + 1),
        "| kills | " + " | ".join(str(kills[phase]) for phase in (*PHASES, "moment")) + " |",
        "",
        "Kills / runs that differ. Overlap: parts in which a batch is sampled. Workers: threads",
        "that load questions.",
        "",
        *_tabulate(rows),
        "",
    ]
    path.write_text("\n".join(lines))


def _tabulate(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Make one line per teacher, accumulation and dropout, with the other two as columns."""
    columns = sorted({(row["case"]["overlap"], row["case"]["workers"]) for row in rows})
    cells: dict[tuple[Any, ...], dict[tuple[int, int], str]] = {}
    for row in rows:
        case = row["case"]
        dropout = "no LoRA" if case["dropout"] is None else str(case["dropout"])
        line = cells.setdefault((case["teacher"], case["accumulate"], dropout), {})
        cell = f"{sum(row['kills'].values())} / {len(row['different'])}"
        line[case["overlap"], case["workers"]] = cell
    head = [f"overlap {overlap}, workers {workers}" for overlap, workers in columns]
    return [
        "| teacher | accumulation | LoRA dropout | " + " | ".join(head) + " |",
        "|---|---|---|" + "---|" * len(columns),
        *(
            "| " + " | ".join([*map(str, key), *(line.get(c, "") for c in columns)]) + " |"
            for key, line in cells.items()
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teachers", nargs="+", default=list(TEACHERS), choices=list(TEACHERS))
    parser.add_argument("--accumulate", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--lora", nargs="+", default=list(DROPOUTS), choices=list(DROPOUTS))
    parser.add_argument("--overlap", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--kills", type=int, default=20, help="at least so many per case")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    options = parser.parse_args()
    results = options.out / "kills.jsonl"
    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    lines = results.read_text().splitlines() if results.exists() else []
    rows = [json.loads(line) for line in lines]
    known = [row["case"] for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        model = write_tiny_model(Path(scratch) / "model")
        # Imports what training imports, so that no child has to.
        warm = Path(scratch) / "warm"
        warm.mkdir()
        train(Case("frozen", 1, 0.0, 1, 0), model, warm, None)
        for case in list_cases(options):
            if vars(case) in known:
                continue
            with tempfile.TemporaryDirectory() as folder:
                rows.append(run_case(case, model, options.kills, Path(folder)))
            with results.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), flush=True)
            write_report(rows, options.out / "kills.md")


if __name__ == "__main__":
    main()
