"""Check that the parts of a method fit together, before anything is sampled."""

from __future__ import annotations

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.objectives import Objective
from lightning_sd.rollout import Sampler

SHARDED = ("FSDPStrategy", "ModelParallelStrategy", "DeepSpeedStrategy")


def check_strategy(strategy: object) -> None:
    """Refuse strategies that shard the weights.

    Ranks that sample until their own longest answer ends would wait for each other forever, and
    teachers could not swap parameters that no rank holds whole.

    Args:
        strategy: The trainer's strategy.

    Raises:
        ValueError: The strategy shards.
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
    """Refuse compositions that could not train as configured.

    Args:
        objective: How the signal becomes a loss.
        context: What the teacher sees.
        sampler: What draws the rollouts.
        attempts: ``sampled`` or ``stored``.

    Raises:
        ValueError: The objective needs a teacher and the context gives none, or it needs
            log-probabilities of the sampling policy that are not available.
    """
    if objective.inputs.uses_teacher and not getattr(context, "gives_views", False):
        raise ValueError(
            f"objective {type(objective).__name__} needs a teacher, but teacher_context is "
            f"{type(context).__name__}. Choose one that gives a view, such as StepAlignedCritique, "
            "or the objective PolicyGradient."
        )
    if "old_logprobs" not in objective.inputs.statistics:
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
            f"objective.temperature={objective.temperature} must equal the sampler's ({tempered})."
        )
