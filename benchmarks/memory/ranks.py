"""Measure the peak memory per rank of DDP and FSDP2, phase by phase.

    python -m benchmarks.memory.ranks

Gloo processes train three steps of a random model of 98 million parameters. Three, because DDP
allocates new buckets in the second step.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.memory.check_plan import MIB, TINY, fit, make_model, update_results
from benchmarks.memory.watch import PHASES, PeakWatch
from lightning_sd import FSDP2Strategy
from lightning_sd.diagnostics.plan.memory import Layout, count_memory
from lightning_sd.diagnostics.plan.size import measure_size
from lightning_sd.diagnostics.plan.work import Workload

RESULTS = Path(__file__).with_name("ranks.json")
CONFIG: dict[str, Any] = {
    **{"layers": 12, "width": 768, "inner": 2304, "heads": 12, "kv_heads": 12, "vocab": 8000},
    **{"prompts": 1, "samples": 2, "prompt": 64, "completion": 32},
}
LAYOUTS: dict[str, Layout] = {
    "ddp": Layout(2, "ddp", cpu=True),
    "fsdp2": Layout(2, "fsdp2", cpu=True),
    "fsdp2 layers": Layout(2, "fsdp2 layers", cpu=True),
}


def train(layout: Layout, config: dict[str, Any]) -> dict[str, float]:
    """Train three steps in this rank; return the MiB of each phase."""
    watch = PeakWatch()
    gather = "layers" if layout.strategy == "fsdp2 layers" else "model"
    sharded = partial(FSDP2Strategy, gather, save_distributed_checkpoint=False)
    fit(
        config,
        watch,
        max_steps=3,
        devices=layout.devices,
        strategy=sharded(replicas=layout.replicas) if layout.is_sharded else "ddp",
        accumulate_grad_batches=layout.accumulate,
    )
    return {name: watch.peaks[name] for name in PHASES}


def predict(layout: Layout) -> dict[str, float]:
    """Return what a plan says of the same run, in MiB."""
    model, shape = make_model(CONFIG, "meta")
    work = Workload(
        shape.prompts, shape.samples, shape.prompt, shape.teacher_prompt, shape.completion
    )
    memory = count_memory(measure_size(model, checkpointing=False), work, layout)
    return {name: getattr(memory, name) / MIB for name in PHASES}


def run_ranks(name: str) -> list[dict[str, float]]:
    """Train in one process per device; return the measurements of each rank."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    ranks = []
    for rank in range(LAYOUTS[name].devices):
        environment = {
            **os.environ,
            **{"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "LOCAL_RANK": str(rank)},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)},
        }
        command = [sys.executable, "-m", "benchmarks.memory.ranks", "--one", name]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    results = []
    for process in ranks:
        output, _ = process.communicate()
        line = next(x for x in output.splitlines() if x.startswith("RESULT "))
        results.append(json.loads(line.removeprefix("RESULT ")))
    return results


def format_table(results: dict[str, Any]) -> str:
    """Format the largest measurement of all ranks of each layout, with the plan's number."""
    lines = [
        "| layout | processes | rollout | teacher | student | optimizer |",
        "|---|---|---|---|---|---|",
    ]
    for name, layout in LAYOUTS.items():
        plan, ranks = results[name]["plan"], results[name]["measured"]
        cells = [
            f"{max(rank[phase] for rank in ranks):.0f} ({plan[phase]:.0f})" for phase in PHASES
        ]
        lines.append(f"| {name} | {layout.devices} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=[], help="measure these layouts again")
    args = parser.parse_args()
    if args.one:
        layout = LAYOUTS[args.one]
        train(layout, {**CONFIG, **TINY})  # imports what a run imports, which is not counted
        print("RESULT " + json.dumps(train(layout, CONFIG)))
        return
    print(format_table(update_results(RESULTS, LAYOUTS, args.only, predict, run_ranks)))


if __name__ == "__main__":
    main()
