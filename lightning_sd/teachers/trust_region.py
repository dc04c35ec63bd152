"""A teacher that stays close to the initial policy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from torch import nn

from lightning_sd.teachers.frozen import FrozenTeacher


class TrustRegionTeacher(FrozenTeacher):
    """log q proportional to (1 - rate) log p_initial + rate log p_current (SDPO, rate 0.01).

    Both policies see the teacher's view, so scoring costs two forward passes. Texts are written by
    the initial policy alone.

    Args:
        rate: Weight of the current policy, above 0 and below 1.

    Raises:
        ValueError: A rate out of range.
    """

    def __init__(self, rate: float = 0.01) -> None:
        if not 0 < rate < 1:
            raise ValueError(
                f"rate={rate}: must be above 0 and below 1 (0: FrozenTeacher, 1: LiveTeacher)."
            )
        self.rate = rate
        super().__init__()

    def list_policies(self, student: nn.Module) -> Sequence[tuple[float, Any]]:
        """List the initial policy and the current one."""
        return [(1 - self.rate, self.swap_in(student)), (self.rate, nullcontext())]
