"""The memory that one device needs in each phase of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import Workload, lay_out
from lightning_sd.functional.linear import CHUNK_BYTES

Strategy = Literal["ddp", "fsdp2", "fsdp2 layers"]

LOGITS_COPIES = 4
"""Copies of a chunk of logits that the loss holds: student, teacher, gradient, softmax."""
SAMPLER_COPIES = 3
"""Copies of the logits of all rows that the sampler holds."""
CACHE_ROOM = 1.25
"""The key-value cache of a rollout grows by a quarter at a time."""


@dataclass(frozen=True)
class Layout:
    """How a student is spread over devices."""

    devices: int = 1
    strategy: Strategy = "ddp"
    """``fsdp2`` gathers the whole model, ``fsdp2 layers`` layer by layer."""
    copies: int = 1
    """1 if the teacher is a copy of the trained parameters, else 0."""
    mixed: bool = False
    """Whether autocast keeps half-precision copies of the weights."""
    packed: bool = False
    """Whether rollouts use packed copies of the linear layers, as on a CPU."""

    @property
    def shards(self) -> int:
        """Number of parts of weights, gradients and optimizer."""
        return 1 if self.strategy == "ddp" else self.devices


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by phase."""

    rollout: float
    teacher: float
    student: float
    """Scores, loss and backward pass."""
    optimizer: float

    @property
    def peak(self) -> float:
        """The largest of all phases."""
        return max(self.rollout, self.teacher, self.student, self.optimizer)


def count_memory(size: ModelSize, work: Workload, layout: Layout) -> Memory:
    """Count what tensors need; a CUDA context and fragmentation come on top.

    Args:
        size: The model.
        work: One micro-batch.
        layout: The strategy.
    """
    always = _count_always(size, layout)
    gathered = always + _count_gathered(size, layout)
    # Lightning frees a step's gradients just before the next backward pass.
    gradients = size.trained / layout.shards
    casts = 2.0 * (size.body + size.head) if layout.mixed else 0.0
    hidden = work.policies * work.answers * size.hidden * size.item
    teacher = gathered + gradients + casts
    if work.policies:
        teacher += _count_scoring(size, work) + hidden
    buckets = size.trained if layout.strategy == "ddp" and layout.devices > 1 else 0
    student = (
        gathered
        + casts
        + buckets
        + max(
            gradients + _count_activations(size, work) + hidden,
            _count_gradients(size, layout),
        )
    )
    # Adam's update is computed for all parameters at once.
    optimizer = always + buckets + gradients + size.trained / layout.shards
    return Memory(
        gathered + gradients + buckets + _count_rollout(size, work, layout),
        teacher + buckets,
        student,
        optimizer,
    )


def _count_always(size: ModelSize, layout: Layout) -> float:
    """Weights, two moments of Adam, and the teacher's copy, which is at least in float32."""
    copy = layout.copies * size.trained * max(1, 4 / size.item)
    return (size.weights + 2 * size.trained + copy) / layout.shards


def _count_gathered(size: ModelSize, layout: Layout) -> float:
    if layout.strategy == "ddp":
        return 0.0
    if layout.strategy == "fsdp2":
        return float(size.weights)
    return size.held + 2 * (size.weights - size.held) / size.layers  # the next one is fetched ahead


def _count_rollout(size: ModelSize, work: Workload, layout: Layout) -> float:
    cache = work.rows * (work.prompt + work.answer) * size.cache * CACHE_ROOM
    logits = SAMPLER_COPIES * work.rows * size.vocab * 4
    packed = (size.body + size.head) * size.item if layout.packed else 0.0
    return cache + logits + packed


def _count_scoring(size: ModelSize, work: Workload) -> float:
    """Keys and values of shared prefixes, and one layer's intermediate values."""
    passes = lay_out(work, teacher=True)
    return passes.cached * size.cache + passes.tokens * size.layer


def _count_activations(size: ModelSize, work: Workload) -> float:
    """What the loss and the backward pass hold of the student, before any gradient."""
    passes = lay_out(work, teacher=False)
    # Rows that share a prefix attend to copies of its keys and values, one per head.
    copies = max(0, passes.cached - passes.tokens) * 2 * size.attention * size.item
    chunk = min(CHUNK_BYTES, work.answers * size.vocab * 4)
    head = size.head * max(4, size.item) if size.trains_head else 0
    loss = LOGITS_COPIES * chunk + head + 2 * work.answers * size.hidden * size.item
    if work.checkpointing:  # a layer is computed again after the loss has freed its logits
        layer = passes.tokens * size.layer
        return passes.tokens * size.saved - layer + copies + max(loss, layer)
    return passes.tokens * size.saved + copies + loss


def _count_gradients(size: ModelSize, layout: Layout) -> float:
    """What is there at the end of the backward pass: all gradients, and that of the embeddings."""
    last = size.head * size.item if size.trains_head else 0
    if layout.strategy != "fsdp2 layers":
        return float(size.trained + last)
    return size.trained / layout.shards + last + size.trained / size.layers
