"""What a training step has to say: the means that are logged, and the object for callbacks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_sd.objectives.reduce import LossOutput
from lightning_sd.types import Rollout, StepOutput, TeacherView

Means = dict[str, tuple[Tensor | float, float]]


def step_means(step: StepOutput, loss: LossOutput, *, uses_teacher: bool) -> Means:
    """Sums and counts of a micro-batch.

    Args:
        step: All of it, judged, with advantages where a teacher scored.
        loss: Of those that took part.
        uses_teacher: Whether the objective reads the views.

    Returns:
        Name to (sum, number of items): loss; reward, length in tokens and share cut off a rollout;
        entropy, advantage and its absolute value a token in nats; share of rollouts with a teacher,
        and tokens cut from its context; share of micro-batches with nothing to learn from.
    """
    own = [r for r in step.rollouts if r.origin == "student"]
    number = len(own)
    means: Means = {
        "loss": (loss.total, loss.count),
        "silent": (float(loss.silent), 1),
        "reward": (sum(r.verdict.reward for r in own if r.verdict), number),
        "length": (sum(len(r.ids) for r in own), number),
        "cut_off": (sum(not r.finished for r in own), number),
        "entropy": (loss.entropy.sum(), len(loss.entropy)),
    }
    if uses_teacher:
        seen = [view for view in step.views if view is not None]
        means["has_teacher"] = (len(seen), len(step.rollouts))
        means["context_cut"] = (sum(sum(view.cut.values()) for view in seen), len(seen))
    advantages = [a for row in step.advantages if row is not None for a in row]
    if advantages:
        means["advantage"] = (sum(advantages), len(advantages))
        means["advantage_abs"] = (sum(map(abs, advantages)), len(advantages))
    return means


def step_output(
    rollouts: Sequence[Rollout],
    views: Sequence[TeacherView | None],
    active: Sequence[int],
    packed: Tensor | None,
) -> StepOutput:
    """Hand each rollout its part of the packed advantages.

    Args:
        rollouts: A batch.
        views: What the teacher saw of each.
        active: Which rollouts were scored, in the order of ``packed``.
        packed: ``[tokens]``, or None if no teacher scored anything.
    """
    advantages: list[tuple[float, ...] | None] = [None] * len(rollouts)
    lengths = [len(rollouts[i].ids) for i in active]
    if packed is not None and len(packed) == sum(lengths):
        for i, part in zip(active, packed.split(lengths), strict=True):
            if views[i] is not None:  # else zeros stood in for the teacher's scores
                advantages[i] = tuple(part.tolist())
    return StepOutput(rollouts, views, advantages)
