"""Measure the peak memory per rank of DDP and both kinds of FSDP2, phase by phase.

    python -m benchmarks.memory.ranks

Two gloo processes train two steps of a random model of 98 million parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.memory.check_plan import MIB, TINY, fit, make_model
from benchmarks.memory.watch import PHASES, PeakWatch
from lightning_sd import FSDP2Strategy
from lightning_sd.diagnostics.plan.memory import Layout, Strategy, count_memory
from lightning_sd.diagnostics.plan.size import measure_size
from lightning_sd.diagnostics.plan.work import Workload

HERE = Path(__file__).parent
CONFIG: dict[str, Any] = {
    **{"layers": 12, "width": 768, "inner": 2304, "heads": 12, "kv_heads": 12, "vocab": 8000},
    **{"prompts": 1, "samples": 2, "prompt": 64, "completion": 32},
}
STRATEGIES: dict[Strategy, Any] = {
    "ddp": lambda: "ddp",
    "fsdp2": lambda: FSDP2Strategy(gather="model", save_distributed_checkpoint=False),
    "fsdp2 layers": lambda: FSDP2Strategy(gather="layers", save_distributed_checkpoint=False),
}


def train(strategy: Strategy, config: dict[str, Any]) -> dict[str, float]:
    """Train two steps in this rank; return the MiB of each phase."""
    watch = PeakWatch()
    fit(config, watch, max_steps=2, devices=2, strategy=STRATEGIES[strategy]())
    return {name: watch.peaks[name] for name in PHASES}


def predict(strategy: Strategy) -> dict[str, float]:
    """Return what a plan says of the same run, in MiB."""
    model, shape = make_model(CONFIG, "meta")
    work = Workload(
        shape.prompts, shape.samples, shape.prompt, shape.teacher_prompt, shape.completion
    )
    layout = Layout(2, strategy, packed=strategy != "fsdp2 layers", copies=1)
    memory = count_memory(measure_size(model, checkpointing=False), work, layout)
    return {name: getattr(memory, name) / MIB for name in PHASES}


def run_ranks(strategy: Strategy) -> list[dict[str, float]]:
    """Train in two processes; return the measurements of each rank."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in (0, 1):
        environment = {
            **os.environ,
            **{"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank)},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)},
        }
        command = [sys.executable, "-m", "benchmarks.memory.ranks", "--one", strategy]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    results = []
    for process in ranks:
        output, _ = process.communicate()
        line = next(x for x in output.splitlines() if x.startswith("RESULT "))
        results.append(json.loads(line.removeprefix("RESULT ")))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        train(args.one, {**CONFIG, **TINY})  # imports what a run imports, which is not counted
        print("RESULT " + json.dumps(train(args.one, CONFIG)))
        return
    rows = []
    for strategy in STRATEGIES:
        planned = predict(strategy)
        for rank, measured in enumerate(run_ranks(strategy)):
            row = {"strategy": strategy, "rank": rank, "measured": measured, "plan": planned}
            rows.append(row)
            cells = [f"{measured[name]:.0f} ({planned[name]:.0f})" for name in PHASES]
            print(f"| {strategy} | {rank} | {' | '.join(cells)} |", flush=True)
    (HERE / "ranks.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
