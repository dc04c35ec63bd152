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
    size: ModelSize, work: Workload, flops: Flops, layout: Layout, card: Card
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
    """
    peak = (card.half if layout.mixed or size.item == 2 else card.single) * TRAIN_EFFICIENCY
    context = work.prompt + work.answer / 2
    read = work.answer * (size.weights + work.rows * context * size.cache)
    rollout = max(read / (card.bandwidth * DECODE_EFFICIENCY), flops.rollout / peak)
    # Adam reads weights, gradients and two moments, and writes all but the gradients.
    update = 7 * size.trained / layout.shards / card.bandwidth
    training = (flops.teacher + flops.student) / peak
    return Seconds(
        layout.accumulate * rollout,
        layout.accumulate * training + update,
        _estimate_network(size, work, layout, card),
    )


def _estimate_network(size: ModelSize, work: Workload, layout: Layout, card: Card) -> float:
    """Estimate the seconds in which each device sends its bytes of an optimizer step."""
    if layout.strategy == "ddp":
        return 2 * size.trained * _share(layout.devices) / _find_link(layout.devices, card)
    if layout.strategy == "fsdp2":
        # The whole model for the rollout, each of the teacher's policies, and the student.
        gathered = layout.accumulate * (2 + work.policies) * size.weights
        reductions = 1
    else:
        # The layers for each token, each policy, and the student's forward and backward pass.
        gathers = layout.accumulate * (work.answer + work.policies + 2)
        gathered = gathers * (size.weights - size.held)
        reductions = layout.accumulate
    reduced = reductions * size.trained
    # Replicas share the sums of their shards, as DDP's devices share those of the whole.
    shared = 2 * reduced / layout.shards * _share(layout.replicas)
    within = (gathered + reduced) * _share(layout.shards)
    return within / _find_link(layout.shards, card) + shared / _find_link(layout.devices, card)


def _share(devices: int) -> float:
    """Return the share of the values that a device lacks, if each has an equal part of them."""
    return (devices - 1) / devices


def _find_link(devices: int, card: Card) -> float:
    """Return the speed of neighboring devices, or that of nodes if they do not fit one."""
    return card.link if devices <= DEVICES_PER_NODE else card.node_link
