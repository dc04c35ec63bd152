"""An average of the student's past as teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_sd.models.trainable import list_trainable
from lightning_sd.teachers.base import TeacherWeights
from lightning_sd.teachers.shadow import Shadow, make_shadow, restored, shadow_state, swapped


class EMATeacher(TeacherWeights):
    """Exponential moving average: after each optimizer step ``t <- (1 - rate) t + rate s``.

    The average runs over the weights themselves and starts at the student's (SDPO: rate 0.05 or
    0.01; SDFT: 0.01; RESD: 0.0001). With LoRA it averages the adapters, from their initial values.

    Args:
        rate: Share of the student taken over a step, above 0 and at most 1.

    Raises:
        ValueError: Rate out of range.
    """

    def __init__(self, rate: float = 0.01) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate}: must be above 0 and at most 1 (0: use FrozenTeacher).")
        self.rate = rate
        self._shadow: Shadow = {}

    def setup(self, student: nn.Module) -> None:
        """Start the average at the student."""
        self._shadow = make_shadow(student)

    @contextmanager
    def weights(self, student: nn.Module) -> Iterator[None]:
        """The student's module with the averaged weights."""
        with swapped(student, self._shadow):
            yield

    @torch.no_grad()
    def after_step(self, student: nn.Module) -> None:
        """Move the average towards the student."""
        for name, parameter in list_trainable(student):
            shadow = self._shadow[name] = self._shadow[name].to(parameter.device)
            shadow.lerp_(parameter.detach().to(shadow.dtype), self.rate)

    def state_dict(self) -> dict[str, Any]:
        """The average itself."""
        return shadow_state(self._shadow)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the average back.

        Raises:
            ValueError: It belongs to another set of trainable weights.
        """
        self._shadow = restored(state, self._shadow, "EMA")
