"""What is known of a micro-batch before its gradient: everything that an objective may read.

Nothing here carries a gradient. Shapes: R rollouts of the micro-batch, with and without a teacher;
N completion tokens of the rollouts that take part, packed one after another without padding;
K contrasting views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_sd.functional.groups import average_over_groups


@dataclass(frozen=True)
class StepState:
    """What an objective may ask beside tensors."""

    step: int = 0
    """Optimizer steps taken so far."""
    tokenizer: Any = None
    """The student's tokenizer."""
    sum_over_ranks: Callable[[Tensor], Tensor] = field(default=lambda value: value, repr=False)
    """Sum a tensor over all ranks. Every rank must call it equally often, with tokens or not."""


@dataclass(frozen=True)
class ObjectiveInputs:
    """One micro-batch as tensors."""

    rewards: Tensor
    """``[R]``, the verifier's rewards; 0 for rollouts that were not judged."""
    groups: Tensor
    """``[R]``; rollouts with equal numbers answer the same question."""
    correct: Tensor
    """``[R]``, bool."""
    finished: Tensor
    """``[R]``, bool: the model ended the completion itself."""
    lengths: Tensor
    """``[R]``, tokens per completion."""
    by_student: Tensor
    """``[R]``, bool: the student wrote the completion; False: the teacher did."""
    has_view: Tensor
    """``[R]``, bool: the teacher has a view of the rollout."""
    ids: Tensor
    """``[N]``, the completion tokens."""
    rows: Tensor
    """``[N]``, the index among the R rollouts to which each token belongs."""
    positions: Tensor
    """``[N]``, position of the token in its completion, from 0."""
    old_logprobs: Tensor | None = None
    """``[N]``, under the student before the first optimizer step on these rollouts; None: the
    current student. ``SelfDistillModule`` trains on each rollout once and leaves it None; a loop
    that trains on rollouts again gives it."""
    behavior_logprobs: Tensor | None = None
    """``[N]``, reported by the sampler that drew the tokens; NaN for texts without them. This and
    the following are given only if the objective's :class:`InputSpec` names them."""
    student_logprobs: Tensor | None = None
    """``[N]``."""
    student_entropy: Tensor | None = None
    """``[N]``, in nats."""
    teacher_logprobs: Tensor | None = None
    """``[N]``, under the first view; 0 for rollouts without a view."""
    teacher_entropy: Tensor | None = None
    """``[N]``, in nats; 0 for rollouts without a view."""
    contrast_logprobs: Tensor | None = None
    """``[N, K]``, under the contrasting views; NaN where a rollout has fewer than K."""
    forward_kl: Tensor | None = None
    """``[N]``, KL(teacher || student) over the whole vocabulary; 0 for rollouts without a view."""
    reverse_kl: Tensor | None = None
    """``[N]``, KL(student || teacher) over the whole vocabulary; 0 for rollouts without a view."""

    def expand_to_tokens(self, values: Tensor) -> Tensor:
        """Give each token its rollout's value: ``[R]`` to ``[N]``."""
        return values.to(self.rows.device)[self.rows]

    def sum_over_tokens(self, values: Tensor) -> Tensor:
        """Sum each rollout's tokens: ``[N]`` to ``[R]``, on the CPU."""
        sums = values.new_zeros(len(self.groups))
        return sums.index_add(0, self.rows, values).cpu()

    def average_over_groups(self, values: Tensor, among: Tensor | None = None) -> Tensor:
        """Give each rollout the mean over its group.

        Args:
            values: ``[R]``.
            among: ``[R]``, bool: which rollouts are counted. Default: those the student wrote.

        Returns:
            ``[R]``, float32 or wider; 0 for a group in which nothing is counted.
        """
        counted = self.by_student if among is None else among
        return average_over_groups(values, self.groups, counted)
