"""The seconds of a step on a card that is not at hand: arithmetic, not measurement."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sd.diagnostics.plan.hardware import (
    DECODE_EFFICIENCY,
    DEVICES_PER_NODE,
    TRAIN_EFFICIENCY,
    Card,
)
from lightning_sd.diagnostics.plan.memory import Layout
from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import Flops, Workload


@dataclass(frozen=True)
class Seconds:
    """Seconds of one optimizer step, by phase."""

    rollout: float
    training: float
    """Teacher's and student's passes, and the optimizer."""
    network: float
    """Gathering of weights and reduction of gradients, if nothing of it is overlapped."""

    @property
    def total(self) -> float:
        """All phases, one after the other."""
        return self.rollout + self.training + self.network


def estimate_seconds(
    size: ModelSize, work: Workload, flops: Flops, layout: Layout, card: Card, *, accumulate: int
) -> Seconds:
    """Estimate the seconds of an optimizer step.

    Decoding reads all weights and the keys and values of all rows for each token. It is bound by
    the memory's bandwidth or, with many rows, by arithmetic.

    Args:
        size: The model.
        work: One micro-batch of one device.
        flops: Those of the micro-batch.
        layout: The strategy.
        card: The device.
        accumulate: Micro-batches per optimizer step.
    """
    peak = (card.half if layout.mixed or size.item == 2 else card.single) * TRAIN_EFFICIENCY
    context = work.prompt + work.answer / 2
    read = work.answer * (size.weights + work.rows * context * size.cache)
    rollout = max(read / (card.bandwidth * DECODE_EFFICIENCY), flops.rollout / peak)
    # Adam reads weights, gradients and two moments, and writes all but the gradients.
    update = 7 * size.trained / layout.shards / card.bandwidth
    training = (flops.teacher + flops.student) / peak
    return Seconds(
        accumulate * rollout,
        accumulate * training + update,
        _count_bytes(size, work, layout, accumulate) / _find_link(layout, card),
    )


def _count_bytes(size: ModelSize, work: Workload, layout: Layout, accumulate: int) -> float:
    """Count the bytes that each device sends in an optimizer step."""
    share = (layout.devices - 1) / layout.devices
    if layout.strategy == "ddp":
        return 2 * size.trained * share
    if layout.strategy == "fsdp2":
        return (2 * accumulate * size.weights + size.trained) * share
    gathers = work.answer + work.policies + 2  # tokens, teacher, student's forward and backward
    return accumulate * (gathers * (size.weights - size.held) + size.trained) * share


def _find_link(layout: Layout, card: Card) -> float:
    return card.link if layout.devices <= DEVICES_PER_NODE else card.node_link
