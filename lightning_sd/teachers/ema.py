"""A moving average of the student as teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_sd.models.trainable import list_trainable
from lightning_sd.teachers.base import TeacherWeights
from lightning_sd.teachers.shadow import (
    Shadow,
    make_shadow,
    pack_shadow,
    restore_shadow,
    swap_parameters,
)


class EMATeacher(TeacherWeights):
    """Exponential moving average: after each optimizer step ``t <- (1 - rate) t + rate s``.

    The average is over the parameters and starts at the initial student (SDPO: rate 0.05 or 0.01;
    SDFT: 0.01; RESD: 0.0001). With LoRA it is over the adapters.

    Args:
        rate: Share of the student in each update, above 0 and at most 1.

    Raises:
        ValueError: A rate out of range.
    """

    def __init__(self, rate: float = 0.01) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate}: must be above 0 and at most 1 (0: use FrozenTeacher).")
        self.rate = rate
        self._shadow: Shadow = {}

    def setup(self, student: nn.Module) -> None:
        """Start the average at the initial student."""
        self._shadow = make_shadow(student)

    @contextmanager
    def swap_in(self, student: nn.Module) -> Iterator[None]:
        """Swap in the averaged parameters."""
        with swap_parameters(student, self._shadow):
            yield

    @torch.no_grad()
    def after_step(self, student: nn.Module) -> None:
        """Move the average toward the student."""
        for name, parameter in list_trainable(student):
            shadow = self._shadow[name] = self._shadow[name].to(parameter.device)
            shadow.lerp_(parameter.detach().to(shadow.dtype), self.rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return pack_shadow(self._shadow)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the average.

        Raises:
            ValueError: It belongs to another set of trainable parameters.
        """
        self._shadow = restore_shadow(state, self._shadow, "EMA")
