"""Kill training runs, resume them, and compare them with the unbroken run bit for bit.

``python -m benchmarks.reliability.run`` goes through the whole matrix; ``--teachers``,
``--kills`` and the like choose a part. An interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.reliability.killed import PHASES, STEPS, TEACHERS, Case, Kill, run_child

HERE = Path(__file__).parent
DROPOUTS = {"none": None, "0": 0.0, "0.2": 0.2}


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


def choose_kills(case: Case, number: int) -> list[list[tuple[str, float]]]:
    """Choose where the runs of a case are killed: each phase, random moments, two in a row.

    Returns:
        One list per run, with a phase and its count, or ``("moment", share of the run's time)``.
    """
    rng = random.Random(case.name)
    batches = STEPS * case.accumulate

    def choose(phase: str) -> tuple[str, float]:
        if phase == "moment":
            return phase, rng.random()
        often = batches if phase in ("batch start", "evidence", "backward", "batch end") else STEPS
        return phase, rng.randint(1, often)

    phases = itertools.cycle([*PHASES, "moment"])
    runs: list[list[tuple[str, float]]] = []
    while sum(map(len, runs)) < number:
        run = [choose(next(phases))]
        if len(runs) % 3 == 2:  # the second kill comes soon after the resume
            run.append((rng.choice(PHASES[:5]), 1 if rng.random() < 0.5 else 2))
        runs.append(run)
    return runs


def run_case(case: Case, kills: int, scratch: Path) -> dict[str, object]:
    """Run a case unbroken and with kills, and compare.

    Returns:
        What differed, by run; empty lists where everything is bit-equal.
    """
    began = time.monotonic()
    expected = _run(case, scratch / "unbroken", [], 0.0)
    seconds = time.monotonic() - began
    done, different = 0, []
    for index, places in enumerate(choose_kills(case, kills)):
        folder = scratch / str(index)
        found = _run(case, folder, places, seconds)
        done += int(found.pop("kills"))
        differing = [name for name in expected if name != "kills" and expected[name] != found[name]]
        if differing:
            different.append({"kills": places, "different": differing})
        shutil.rmtree(folder)
    return {"case": case.name, "runs": index + 1, "kills": done, "different": different}


def _run(
    case: Case, folder: Path, kills: Sequence[tuple[str, float]], seconds: float
) -> dict[str, str]:
    folder.mkdir(parents=True)
    done = 0
    for phase, number in kills:
        if phase == "moment":
            ended = run_child(case, folder, None, number * seconds)
        else:
            ended = run_child(case, folder, Kill(phase, int(number)))
        if ended:
            break
        done += 1
    else:
        if not run_child(case, folder, None):
            raise RuntimeError(f"{folder}: killed from outside.")
    return {**json.loads((folder / "digest.json").read_text()), "kills": str(done)}


def write_report(rows: Iterable[dict[str, object]], path: Path) -> None:
    """Write what was run as a table."""
    lines = [
        "# Kill matrix",
        "",
        "Runs of the embedded solver are killed by SIGKILL and resumed from `last.ckpt`. Weights,",
        "optimizer, teacher, schedule and logged values are compared with the unbroken run, bit by",
        "bit. Only what is in the table was run; `python -m benchmarks.reliability.run` runs the",
        "whole matrix. Logged values are compared without the counts of the critique cache.",
        "",
        f"A run has {STEPS} optimizer steps and a checkpoint after each. Kills:",
        f"{', '.join(PHASES)}, and random moments. Every third run is killed twice in a row.",
        "",
        "| teacher, accumulation, LoRA dropout, overlap, workers | runs | kills | different |",
        "|---|---|---|---|",
    ]
    total = 0
    for row in rows:
        different = row["different"]
        assert isinstance(different, list)
        total += int(str(row["kills"]))
        lines.append(f"| {row['case']} | {row['runs']} | {row['kills']} | {len(different)} |")
    lines += ["", f"Kills in all: {total}.", ""]
    path.write_text("\n".join(lines))


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
    known = {row["case"] for row in rows}
    for case in list_cases(options):
        if case.name in known:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row = run_case(case, options.kills, Path(scratch))
        with results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
        print(json.dumps(row), flush=True)
        write_report(rows, options.out / "kills.md")


if __name__ == "__main__":
    main()
