"""Refuse values that are not finite: rewards, advantages, losses, gradients and weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_sd.models.sharding import to_full, to_local
from lightning_sd.models.trainable import list_trainable
from lightning_sd.types import Rollout


def check_rewards(rollouts: Sequence[Rollout]) -> None:
    """Refuse rewards that are NaN or infinite.

    Args:
        rollouts: Rollouts with their verdicts; those without a verdict are passed over.

    Raises:
        ValueError: A reward is not finite; the message names the question and the remedy.
    """
    for rollout in rollouts:
        if rollout.verdict is not None and not math.isfinite(rollout.verdict.reward):
            raise ValueError(
                f"reward={rollout.verdict.reward} of question {rollout.question.id!r}: rewards "
                "must be finite. Let the task's `verify` return a finite reward for every "
                f"completion, this one included: {rollout.text[:200]!r}."
            )


def check_advantages(
    advantages: Tensor | None, rollouts: Sequence[Rollout], lengths: Sequence[int]
) -> None:
    """Refuse advantages that are NaN or infinite.

    Args:
        advantages: ``[tokens]``, the rollouts' tokens one after another; None: nothing to check.
        rollouts: The rollouts that the tokens belong to.
        lengths: Number of tokens of each rollout.

    Raises:
        ValueError: An advantage is not finite; the message names the question and the remedy.
    """
    if advantages is None:
        return
    bad = ~torch.isfinite(advantages)
    if not bool(bad.any()):
        return
    place = int(bad.nonzero()[0])
    ends = torch.tensor(list(lengths)).cumsum(0)
    rollout = rollouts[int((ends <= place).sum())]
    reward = None if rollout.verdict is None else rollout.verdict.reward
    raise ValueError(
        f"advantages={advantages[place].item()} of question {rollout.question.id!r} (reward "
        f"{reward}): advantages must be finite. Let `verify` return rewards of moderate size, and "
        "check the objective's `make_token_inputs`."
    )


def find_non_finite(student: nn.Module) -> str | None:
    """Return the name of the first trainable parameter that is not finite; None if all are.

    With sharded parameters each rank looks at its shard, and all ranks must call it.
    """
    parameters = list_trainable(student)
    names = [name for name, p in parameters if not bool(to_local(p.detach()).isfinite().all())]
    if any(isinstance(parameter, DTensor) for _, parameter in parameters):
        found: list[list[str]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(found, names)
        names = [name for rank in found for name in rank]
    return names[0] if names else None


def check_trained_weights(student: nn.Module, purpose: str) -> None:
    """Refuse trained weights that are NaN or infinite.

    Args:
        student: The module.
        purpose: What is refused, for the message, such as ``"No checkpoint is written"``.

    Raises:
        FloatingPointError: A trainable parameter is not finite.
    """
    name = find_non_finite(student)
    if name is not None:
        raise FloatingPointError(
            f"{purpose}: the weight {name!r} is NaN or infinite, so training has diverged. Earlier "
            "checkpoints are kept. Lower the learning rate or clip gradients, and resume from one "
            "of them."
        )


def compute_gradient_norm(grads: Iterable[Tensor]) -> float:
    """Compute the Euclidean norm over all gradients; NaN or infinite if one of them is."""
    norms = [to_full(norm) for norm in torch._foreach_norm(list(grads))]
    if not norms:
        return 0.0
    device = norms[0].device
    return float(torch.stack([norm.to(device, torch.float32) for norm in norms]).norm())


@dataclass
class StepGuard:
    """Counts optimizer steps that were skipped because a value was not finite."""

    max_bad_steps: int
    """Number of skipped steps in a row at which training stops."""
    skipped: int = 0
    """Steps skipped since training began."""
    in_a_row: int = 0
    """Skipped steps since the last good one."""

    def __post_init__(self) -> None:
        if self.max_bad_steps < 1:
            raise ValueError(f"max_bad_steps={self.max_bad_steps}: must be at least 1.")

    def count(self, *, skipped: bool, counted: bool) -> None:
        """Count one optimizer step.

        Args:
            skipped: Whether the step was skipped.
            counted: Whether a skipped step counts toward ``max_bad_steps``.
        """
        self.skipped += skipped
        if not skipped:
            self.in_a_row = 0
        elif counted:
            self.in_a_row += 1

    @property
    def exhausted(self) -> bool:
        """Whether training must stop."""
        return self.in_a_row >= self.max_bad_steps
