"""A teacher that leaves the initial policy only a little way behind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import nn

from lightning_sd.teachers.frozen import FrozenTeacher


class TrustRegionTeacher(FrozenTeacher):
    """log q proportional to (1 - rate) log p_initial + rate log p_current (SDPO, rate 0.01).

    Both policies see the teacher's view, so it costs two forward passes. Where the teacher is to
    write a text instead of scoring one, the initial policy alone writes it.

    Args:
        rate: Weight of the current policy, above 0 and below 1.

    Raises:
        ValueError: Rate out of range.
    """

    def __init__(self, rate: float = 0.01) -> None:
        if not 0 < rate < 1:
            raise ValueError(
                f"rate={rate}: must be above 0 and below 1 (0: FrozenTeacher, 1: LiveTeacher)."
            )
        self.rate = rate
        super().__init__()

    def parts(self, student: nn.Module) -> Sequence[tuple[float, Any]]:
        """The initial policy and the current one."""
        return [(1 - self.rate, self.weights(student)), (self.rate, nullcontext())]
