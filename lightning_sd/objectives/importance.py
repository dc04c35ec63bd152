"""Importance correction: weigh tokens by how likely the current policy is to sample them.

Two policies must not be confused. The old policy is the student at the start of an optimizer step;
PPO's ratio compares the current student with it. The behavior policy drew the tokens: it may be
another engine, another precision, or older parameters. The importance weight corrects from the
behavior policy to the old one.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from lightning_sd.objectives.inputs import ObjectiveInputs

Level = Literal["token", "sequence"]


def check_importance(clip: float | None, level: Level) -> None:
    """Refuse importance settings that cannot work.

    Args:
        clip: ``importance_clip`` of an objective.
        level: ``importance`` of an objective.

    Raises:
        ValueError: A clip that is not above 0, an unknown level, or a level without a clip.
    """
    if clip is not None and not clip > 0:
        raise ValueError(f"importance_clip={clip}: must be above 0, or none.")
    if level not in get_args(Level):
        raise ValueError(f"importance={level!r}: choose token or sequence.")
    if clip is None and level != "token":
        raise ValueError(f"importance={level!r} has no effect without importance_clip; set it.")


def list_importance_inputs(clip: float | None, level: Level) -> list[str]:
    """List the statistics that the weights need."""
    if clip is None:
        return []
    names = {"token": ["behavior_logprobs"], "sequence": ["behavior_logprobs", "student_logprobs"]}
    return names[level]


def make_behavior_logprobs(inputs: ObjectiveInputs, level: Level) -> Tensor | None:
    """Return log-probabilities under the behavior policy for the tokens' importance weights.

    For ``sequence`` they are shifted such that the ratio of each token is the ratio of its whole
    completion: the product over the tokens.

    Args:
        inputs: The micro-batch.
        level: ``token`` or ``sequence``.

    Returns:
        ``[N]``; NaN: unknown, which counts as a ratio of 1. None if the objective reads none.
    """
    behavior = inputs.behavior_logprobs
    start = inputs.student_logprobs if inputs.old_logprobs is None else inputs.old_logprobs
    if level == "token" or behavior is None or start is None:
        return behavior
    gaps = (start - behavior).nan_to_num(nan=0.0)
    return start - inputs.expand_to_tokens(inputs.sum_over_tokens(gaps))
