"""Check that the parts of a method fit together, before anything is sampled."""

from __future__ import annotations

import torch

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.objectives import Objective, TokenInputs, TokenLoss
from lightning_sd.rollout import Sampler

EXAMPLE_VOCABULARY = 512
"""Size of the vocabulary of the example on which objectives are checked."""
REFUSED = ("FSDPStrategy", "DeepSpeedStrategy")


def check_strategy(strategy: object) -> None:
    """Refuse strategies that shard the weights in a way that rollouts cannot use.

    FSDP2 is supported. FSDP1 and DeepSpeed gather layer by layer in forward passes, of which ranks
    make different numbers when they sample.

    Args:
        strategy: The trainer's strategy.

    Raises:
        ValueError: The strategy is not supported.
    """
    name = type(strategy).__name__
    if name in REFUSED:
        raise ValueError(
            f"trainer.strategy={name} shards the weights in a way that rollouts cannot use. Use "
            "fsdp2, or ddp with `lora` or `quantization`."
        )


def check_token_loss(objective: Objective) -> None:
    """Call ``token_loss`` on two tokens, and refuse a result of another kind or shape.

    An objective that needs more than logits and advantages is checked by the first batch instead.

    Args:
        objective: How the signal becomes a loss.

    Raises:
        TypeError: The result is no ``TokenLoss``.
        ValueError: Its loss has not one value per token.
    """
    logits = torch.linspace(-1, 1, 2 * EXAMPLE_VOCABULARY).view(2, EXAMPLE_VOCABULARY)
    teacher = logits.flip(0) if objective.inputs.teacher_logits else None
    tokens = TokenInputs(torch.tensor([0, 1]), advantages=torch.ones(2))
    try:
        result: object = objective.token_loss(logits.requires_grad_(), teacher, tokens)
    except Exception:
        return
    name = f"objective {type(objective).__name__}"
    if not isinstance(result, TokenLoss):
        raise TypeError(
            f"{name}: token_loss returned a {type(result).__name__}; return "
            "TokenLoss(loss, student_logprobs, entropy), each [tokens]."
        )
    if result.loss.shape != (2,):
        raise ValueError(
            f"{name}: token_loss returned a loss of shape {list(result.loss.shape)} for 2 tokens; "
            "return one value per token, which the reduction averages."
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
        ValueError: The objective needs a teacher and the context gives none, it weighs tokens by
            their probability under the sampler, which is not known or is another distribution, or
            its loss has another shape than the tokens.
        TypeError: ``token_loss`` returns no ``TokenLoss``.
    """
    check_token_loss(objective)
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
