"""The student of some steps ago as teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_sd.teachers.base import TeacherWeights
from lightning_sd.teachers.shadow import Shadow, make_shadow, restored, shadow_state, swapped


class SnapshotTeacher(TeacherWeights):
    """A copy of the student, taken anew every n optimizer steps (RLCSD: 10).

    Args:
        every: Optimizer steps between two copies.

    Raises:
        ValueError: Below 1.
    """

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every={every}: must be at least 1.")
        self.every = every
        self._shadow: Shadow = {}
        self._steps = 0

    def setup(self, student: nn.Module) -> None:
        """Begin with the initial student."""
        self._shadow, self._steps = make_shadow(student), 0

    @contextmanager
    def weights(self, student: nn.Module) -> Iterator[None]:
        """The student's module with the copied weights."""
        with swapped(student, self._shadow):
            yield

    def after_step(self, student: nn.Module) -> None:
        """Count, and copy when it is time."""
        self._steps += 1
        if self._steps % self.every == 0:
            self._shadow = make_shadow(student)

    def state_dict(self) -> dict[str, Any]:
        """The copy, and the steps taken since training began."""
        return {**shadow_state(self._shadow), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take both back.

        Raises:
            ValueError: The copy belongs to another set of trainable weights.
        """
        self._shadow, self._steps = restored(state, self._shadow, "snapshot"), int(state["steps"])
