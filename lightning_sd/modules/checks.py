"""Whether the parts of a method fit together, asked before anything is sampled."""

from __future__ import annotations

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.objectives import Objective
from lightning_sd.rollout import Sampler

SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


def check_strategy(strategy: object) -> None:
    """Refuse strategies that shard the weights.

    Ranks that sample until their own longest answer ends would wait for each other for ever, and
    teachers could not swap weights that no rank holds whole.

    Args:
        strategy: The trainer's.

    Raises:
        ValueError: It shards.
    """
    name = type(strategy).__name__
    if name in SHARDED:
        raise ValueError(
            f"trainer.strategy={name} shards the weights, with which rollouts are not supported "
            "yet. Use ddp, with `lora` or `quantization` if the model is too large for one device."
        )


def check_composition(
    objective: Objective, context: TeacherContext | None, sampler: Sampler, attempts: str
) -> None:
    """Refuse compositions that could not train as they read.

    Args:
        objective: How the signal becomes a loss.
        context: What the teacher sees.
        sampler: Who draws the rollouts.
        attempts: ``sampled`` or ``stored``.

    Raises:
        ValueError: A teacher is needed and none is given, or probabilities of the sampling policy
            are needed and none are to be had.
    """
    if objective.uses_teacher and not getattr(context, "gives", False):
        raise ValueError(
            f"objective {type(objective).__name__} needs a teacher, but teacher_context is "
            f"{type(context).__name__}. Choose one that gives a view, such as StepAlignedCritique, "
            "or the objective PolicyGradient."
        )
    if not objective.needs_old_logprobs:
        return
    if attempts == "stored":
        raise ValueError(
            "objective.importance_clip needs the probabilities under which attempts were sampled, "
            "and attempts='stored' has none: set it to null."
        )
    tempered = getattr(sampler, "temperature", objective.temperature)
    if tempered != objective.temperature:
        raise ValueError(
            "objective.importance_clip compares the policy with the one that sampled, so "
            f"objective.temperature={objective.temperature} must be the sampler's ({tempered})."
        )
