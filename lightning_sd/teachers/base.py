"""Whose weights the self-teacher has.

A teacher is no second model. It is the student's own module with other tensors in it: those of its
adapters or trainable weights are swapped for a shadow while the teacher scores, and put back. Only
trainable tensors have a shadow, in float32, outside ``parameters()``, so that optimizers, DDP and
the checkpoint of the student never see it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


class TeacherWeights(ABC):
    """Which weights score the teacher's view. One instance serves one student."""

    def setup(self, student: nn.Module) -> None:  # noqa: B027 - the live teacher keeps nothing
        """Called once, with the initial student, before a checkpoint is loaded into it."""

    @abstractmethod
    def weights(self, student: nn.Module) -> Any:
        """A context manager inside which the student's module holds the teacher's weights."""

    def parts(self, student: nn.Module) -> Sequence[tuple[float, Any]]:
        """Policies of which the teacher is the geometric mean: (exponent, context manager) each.

        One with exponent 1, unless a teacher mixes several.
        """
        return [(1.0, self.weights(student))]

    def after_step(self, student: nn.Module) -> None:  # noqa: B027 - frozen and live never move
        """Called after each optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold so that resuming gives the same teacher."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - as above
        """Take back what :meth:`state_dict` gave."""


class LiveTeacher(TeacherWeights):
    """The student's current weights, without gradient."""

    @contextmanager
    def weights(self, student: nn.Module) -> Iterator[None]:
        """Leaves the student as it is."""
        yield
