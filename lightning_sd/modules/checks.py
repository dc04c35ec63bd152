"""Check that the parts of a method fit together, before anything is sampled."""

from __future__ import annotations

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.objectives import Objective
from lightning_sd.rollout import Sampler

REFUSED = ("FSDPStrategy", "DeepSpeedStrategy")


def check_strategy(strategy: object) -> None:
    """Refuse strategies that shard the weights in a way that rollouts cannot use.

    ``ModelParallelStrategy`` (FSDP2) is supported; see
    :func:`~lightning_sd.models.sharding.shard_model` for its mesh. FSDP1 and DeepSpeed
    gather layer by layer in forward passes, of which ranks make different numbers when they sample.

    Args:
        strategy: The trainer's strategy.

    Raises:
        ValueError: The strategy is not supported.
    """
    name = type(strategy).__name__
    if name in REFUSED:
        raise ValueError(
            f"trainer.strategy={name} shards the weights in a way that rollouts cannot use. Use "
            "ModelParallelStrategy (FSDP2), or ddp with `lora` or `quantization`."
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
        ValueError: The objective needs a teacher and the context gives none, or it weighs tokens by
            their probability under the sampler, which is not known or is another distribution.
    """
    if objective.inputs.uses_teacher and not getattr(context, "gives_views", False):
        raise ValueError(
            f"objective {type(objective).__name__} needs a teacher, but teacher_context is "
            f"{type(context).__name__}. Choose one that gives a view, such as StepAlignedCritique, "
            "or the objective PolicyGradient."
        )
    if "behavior_logprobs" in objective.inputs.statistics:
        _check_behavior_policy(objective, sampler, attempts)


def _check_behavior_policy(objective: Objective, sampler: Sampler, attempts: str) -> None:
    """Refuse importance weights if the sampler's report is not the probability of its draws."""
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
    top_p, top_k = getattr(sampler, "top_p", 1.0), getattr(sampler, "top_k", 0)
    if top_p < 1 or top_k > 0:
        raise ValueError(
            f"sampler.top_p={top_p}, top_k={top_k} with objective.importance_clip: the sampler "
            "reports log-probabilities before top-p and top-k, which are not those of its draws. "
            "Set top_p=1 and top_k=0, or importance_clip to null."
        )
