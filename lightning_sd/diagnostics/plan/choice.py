"""Choose how a run is spread over devices."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sd.diagnostics.plan.hardware import DEVICES_PER_NODE, USABLE, Card
from lightning_sd.diagnostics.plan.memory import Layout, Memory, Strategy, count_memory
from lightning_sd.diagnostics.plan.seconds import Seconds, estimate_seconds
from lightning_sd.diagnostics.plan.settings import Run
from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import count_flops


@dataclass(frozen=True)
class Choice:
    """A run on a number of devices."""

    devices: int
    strategy: Strategy
    replicas: int
    """Groups of devices that each hold the whole model in shards."""
    memory: Memory
    """Bytes per device."""
    seconds: Seconds
    """Arithmetic for an optimizer step, not measured."""
    rollouts: int
    """Rollouts of an optimizer step, on all devices."""
    fits: bool


def choose_strategy(run: Run, size: ModelSize, card: Card, devices: int) -> Choice:
    """Choose the first layout that fits a number of devices; the last one if none does.

    Args:
        run: The run.
        size: Its model.
        card: The device.
        devices: The number of devices.
    """
    for layout in list_layouts(run, devices):
        memory = count_memory(size, run.work, layout)
        fits = memory.peak <= USABLE * card.memory
        if fits:
            break
    flops = count_flops(size, run.work)
    seconds = estimate_seconds(size, run.work, flops, layout, card)
    rollouts = run.work.rows * devices * run.accumulate
    return Choice(devices, layout.strategy, layout.replicas, memory, seconds, rollouts, fits)


def list_layouts(run: Run, devices: int) -> list[Layout]:
    """List layouts from the one that sends least to the one that needs the least memory.

    With several full nodes, FSDP2 is tried with one replica per node first. ``fsdp2 layers`` is
    refused with a token budget.
    """
    if devices == 1:
        return [run.lay_out(1, "ddp")]
    nodes = devices // DEVICES_PER_NODE if devices % DEVICES_PER_NODE == 0 else 1
    sharded: list[Strategy] = ["fsdp2", "fsdp2 layers"]
    return [
        run.lay_out(devices, "ddp"),
        *(
            run.lay_out(devices, strategy, replicas)
            for strategy in sharded[: 2 if run.work.max_tokens is None else 1]
            for replicas in sorted({nodes, 1}, reverse=True)
        ),
    ]
