"""What is known of a micro-batch before its gradient: all that an objective may read.

Rewards and groups say how good a rollout was, the teacher's and the student's log-probabilities how
each saw its tokens. Nothing here has a graph.

Legend: R rollouts of the micro-batch (those without a teacher too), N completion tokens of the
rollouts that take part, packed one after another, K contrasting views.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Signals:
    """One micro-batch, as tensors."""

    rewards: Tensor
    """``[R]``, the verifier's; 0 where nothing was judged."""
    groups: Tensor
    """``[R]``, equal numbers answer the same question."""
    correct: Tensor
    """``[R]``, bool."""
    finished: Tensor
    """``[R]``, bool: the model ended the completion itself."""
    lengths: Tensor
    """``[R]``, tokens of each completion."""
    sampled: Tensor
    """``[R]``, bool: the student wrote it; False: a context brought it in (a teacher's text)."""
    seen: Tensor
    """``[R]``, bool: there is a teacher's view of it."""
    ids: Tensor
    """``[N]``, the completion tokens."""
    rows: Tensor
    """``[N]``, to which of the R rollouts each token belongs."""
    positions: Tensor
    """``[N]``, its place in its completion, from 0."""
    old_logprobs: Tensor | None = None
    """``[N]``, under the policy that sampled them, NaN for texts that came without them (a
    teacher's); given if the objective asks."""
    student_logprobs: Tensor | None = None
    """``[N]``; this and the following are given if the objective's ``reads`` names them."""
    student_entropy: Tensor | None = None
    """``[N]``, in nats."""
    teacher_logprobs: Tensor | None = None
    """``[N]``, of the first view; 0 where there is none."""
    teacher_entropy: Tensor | None = None
    """``[N]``."""
    contrast_logprobs: Tensor | None = None
    """``[N, K]``, of the contrasting views; NaN where a rollout has fewer."""
    forward_kl: Tensor | None = None
    """``[N]``, KL(teacher || student) over the whole vocabulary; 0 where there is no view."""
    reverse_kl: Tensor | None = None
    """``[N]``, KL(student || teacher), likewise."""
    step: int = 0
    """Optimizer steps taken so far."""
    tokenizer: Any = None
    total: Callable[[Tensor], Tensor] = field(default=lambda value: value, repr=False)
    """Sums a tensor over all ranks. Every rank calls it equally often, with tokens or without."""

    def of_rows(self, values: Tensor) -> Tensor:
        """Hand each token its rollout's value: ``[R]`` to ``[N]``."""
        return values.to(self.rows.device)[self.rows]

    def group_mean(self, values: Tensor, among: Tensor | None = None) -> Tensor:
        """Mean over each rollout's group.

        Args:
            values: ``[R]``.
            among: ``[R]``, bool: which rollouts are counted. Default: those that were sampled.

        Returns:
            ``[R]``, float32 or wider; 0 for a group in which nothing is counted.
        """
        chosen = self.sampled if among is None else among
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        _, index = torch.unique(self.groups, return_inverse=True)
        sums = wide.new_zeros(int(index.max()) + 1 if len(index) else 0)
        sizes = sums.index_add(0, index, chosen.to(wide.dtype))
        sums = sums.index_add(0, index, wide * chosen)
        return (sums / sizes.clamp(min=1))[index]
