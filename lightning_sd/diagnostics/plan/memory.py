"""The memory that one device needs in each phase of a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lightning_sd.diagnostics.plan.size import ModelSize
from lightning_sd.diagnostics.plan.work import Passes, Workload, lay_out
from lightning_sd.functional.linear import default_chunk

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
    replicas: int = 1
    """Groups of devices that each hold the whole model in shards, under FSDP2."""
    copies: int = 1
    """1 if the teacher is a copy of the trained parameters, else 0."""
    mixed: bool = False
    """Whether autocast keeps half-precision copies of the weights."""
    accumulate: int = 1
    """Micro-batches per optimizer step."""
    cpu: bool = False
    """Whether the devices are CPUs: rollouts then use packed copies of the linear layers, and the
    optimizer updates one parameter at a time."""

    @property
    def shards(self) -> int:
        """Number of parts of weights, gradients and optimizer."""
        return 1 if self.strategy == "ddp" else self.devices // self.replicas

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP2 holds the model, be it in one part."""
        return self.strategy != "ddp"


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
    casts = 2.0 * (size.body + size.head) if layout.mixed else 0.0
    gathered = always + _count_gathered(size, layout)
    gradients = _count_kept_gradients(size, layout)
    taught = _count_teacher_scores(size, work, layout)
    teacher = gradients + casts + taught
    if work.policies:
        teacher += _count_scoring(size, work) + _count_swapped(size, layout)
    student = casts + _count_student(size, work, layout, gradients, taught)
    return Memory(
        gathered + gradients + _count_rollout(size, work, layout),
        gathered + teacher,
        gathered + student,
        always + _count_buckets(size, layout) + _count_update(size, layout),
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


def _count_buckets(size: ModelSize, layout: Layout) -> float:
    """The buckets in which DDP sends gradients."""
    return float(size.trained) if layout.strategy == "ddp" and layout.devices > 1 else 0.0


def _count_kept_gradients(size: ModelSize, layout: Layout) -> float:
    """Gradients that are held outside of backward passes, and DDP's buckets.

    Lightning frees a step's gradients just before its first backward pass. Under ``fsdp2`` those of
    earlier micro-batches are not reduced yet, so they are whole.
    """
    whole = layout.strategy == "fsdp2" and layout.accumulate > 1
    return size.trained / (1 if whole else layout.shards) + _count_buckets(size, layout)


def _count_update(size: ModelSize, layout: Layout) -> float:
    """Gradients, and what Adam's update holds: of all parameters at once, except on a CPU."""
    update = 2 * size.largest if layout.cpu else size.trained
    return (size.trained + update) / layout.shards


def _count_rollout(size: ModelSize, work: Workload, layout: Layout) -> float:
    cache = work.rows * (work.prompt + work.answer) * size.cache * CACHE_ROOM
    logits = SAMPLER_COPIES * work.rows * size.vocab * 4
    packs = layout.cpu and layout.strategy != "fsdp2 layers"
    return cache + logits + ((size.body + size.head) * size.item if packs else 0.0)


def _count_swapped(size: ModelSize, layout: Layout) -> float:
    """What is held of the student while the module has the teacher's parameters.

    Without shards parameters point to the teacher's copy, or to one in their own dtype.
    """
    copied = layout.is_sharded or size.item < 4
    return layout.copies * size.trained / layout.shards if copied else 0.0


def _count_scoring(size: ModelSize, work: Workload) -> float:
    """Keys and values of shared prefixes, and one layer's intermediate values."""
    parts = lay_out(work, teacher=True)
    return max(passes.cached * size.cache + passes.tokens * size.layer for passes in parts)


def _count_teacher_scores(size: ModelSize, work: Workload, layout: Layout) -> float:
    """The teacher's hidden states, and under FSDP2 its head, until the loss is computed."""
    head = size.head if layout.is_sharded else 0
    return float(work.policies * (work.answers * size.hidden + head) * size.item)


def _count_student(
    size: ModelSize, work: Workload, layout: Layout, gradients: float, taught: float
) -> float:
    """The most that is held in the loss, where the backward pass begins, and at its end."""
    parts = lay_out(work, teacher=False)
    saved = max(_count_saved(size, passes) for passes in parts)
    layer = max(passes.tokens for passes in parts) * size.layer
    chunk = min(default_chunk(size.vocab), work.answers) * size.vocab * 4
    head = size.head * max(4, size.item) if size.trains_head else 0
    kept = head + 2 * work.answers * size.hidden * size.item
    # What is computed again is not held while the loss is computed.
    held = 0.0 if len(parts) > 1 else saved - layer * work.checkpointing
    earlier = gradients if layout.accumulate > 1 else _count_buckets(size, layout)
    return max(
        gradients + taught + held + kept + LOGITS_COPIES * chunk,
        earlier + saved + kept,
        _count_gradients(size, layout) + _count_buckets(size, layout),
    )


def _count_saved(size: ModelSize, passes: Passes) -> float:
    """What a forward pass holds for the backward pass."""
    # Rows that share a prefix attend to copies of its keys and values, one per head.
    copies = max(0, passes.cached - passes.tokens) * 2 * size.attention * size.item
    return passes.tokens * size.saved + copies


def _count_gradients(size: ModelSize, layout: Layout) -> float:
    """What is there at the end of the backward pass: all gradients, and that of the embeddings."""
    last = size.head * size.item if size.trains_head else 0
    if layout.strategy != "fsdp2 layers":
        return float(size.trained + last)
    return size.trained / layout.shards + last + size.trained / size.layers
