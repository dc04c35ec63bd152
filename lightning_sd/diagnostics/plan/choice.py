"""Choose how a run is spread over devices."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sd.diagnostics.plan.hardware import USABLE, Card
from lightning_sd.diagnostics.plan.memory import Memory, Strategy, count_memory
from lightning_sd.diagnostics.plan.seconds import Seconds, estimate_seconds
from lightning_sd.diagnostics.plan.settings import Run
from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import count_flops

STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp2", "fsdp2 layers")
"""From the one that moves least to the one that needs the least memory."""


@dataclass(frozen=True)
class Choice:
    """A run on a number of devices."""

    devices: int
    strategy: Strategy
    memory: Memory
    """Bytes per device."""
    seconds: Seconds
    """Arithmetic for an optimizer step, not measured."""
    rollouts: int
    """Rollouts of an optimizer step, on all devices."""
    fits: bool


def choose_strategy(run: Run, size: ModelSize, card: Card, devices: int) -> Choice:
    """Choose the first strategy that fits a number of devices; the last one if none does.

    Args:
        run: The run.
        size: Its model.
        card: The device.
        devices: The number of devices.
    """
    for strategy in STRATEGIES if devices > 1 else STRATEGIES[:1]:
        layout = run.lay_out(devices, strategy)
        memory = count_memory(size, run.work, layout)
        fits = memory.peak <= USABLE * card.memory
        if fits:
            break
    flops = count_flops(size, run.work)
    seconds = estimate_seconds(size, run.work, flops, layout, card, accumulate=run.accumulate)
    rollouts = run.work.rows * devices * run.accumulate
    return Choice(devices, strategy, memory, seconds, rollouts, fits)
