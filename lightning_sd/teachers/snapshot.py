"""A periodic copy of the student as teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_sd.teachers.base import TeacherWeights
from lightning_sd.teachers.shadow import (
    Shadow,
    make_shadow,
    pack_shadow,
    restore_shadow,
    swap_parameters,
)


class SnapshotTeacher(TeacherWeights):
    """A copy of the student that is renewed every n optimizer steps (RLCSD: 10).

    Args:
        every: Optimizer steps between two copies.

    Raises:
        ValueError: ``every`` below 1.
    """

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every={every}: must be at least 1.")
        self.every = every
        self._shadow: Shadow = {}
        self._steps = 0

    def setup(self, student: nn.Module) -> None:
        """Copy the initial student."""
        self._shadow, self._steps = make_shadow(student), 0

    @contextmanager
    def swap_in(self, student: nn.Module) -> Iterator[None]:
        """Swap in the copied parameters."""
        with swap_parameters(student, self._shadow):
            yield

    def after_step(self, student: nn.Module) -> None:
        """Count steps, and copy the student every ``every`` steps."""
        self._steps += 1
        if self._steps % self.every == 0:
            self._shadow = make_shadow(student)

    def state_dict(self) -> dict[str, Any]:
        """Return the copy and the number of steps since training began."""
        return {**pack_shadow(self._shadow), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the copy and the number of steps.

        Raises:
            ValueError: The copy belongs to another set of trainable parameters.
        """
        self._shadow, self._steps = (
            restore_shadow(state, self._shadow, "snapshot"),
            int(state["steps"]),
        )
