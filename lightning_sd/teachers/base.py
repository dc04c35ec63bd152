"""The base class of teachers: which parameters the self-teacher has.

A teacher is not a second model. It is the student's own module with other values in its trainable
parameters: they are swapped for a shadow copy while the teacher scores, and swapped back. The
shadow is in float32 and outside ``parameters()``, so optimizers, DDP and the student's checkpoint
never see it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import nn


class TeacherWeights(ABC):
    """The parameters that score the teacher's view. One instance serves one student."""

    writes_frozen: ClassVar[bool] = False
    """Whether the parameters in which the teacher writes texts never change."""

    def setup(self, student: nn.Module) -> None:  # noqa: B027 - the live teacher keeps nothing
        """Prepare the teacher; called once with the initial student."""

    @abstractmethod
    def swap_in(self, student: nn.Module) -> Any:
        """Return a context manager in which the student's module holds the teacher's parameters."""

    def list_policies(self, student: nn.Module) -> Sequence[tuple[float, Any]]:
        """List the policies of which the teacher is the geometric mean.

        Returns:
            An exponent and a context manager per policy; one policy with exponent 1, unless the
            teacher mixes several.
        """
        return [(1.0, self.swap_in(student))]

    def after_step(self, student: nn.Module) -> None:  # noqa: B027 - frozen and live never move
        """Follow the student; called after each optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold so that a resumed run has the same teacher."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - as above
        """Restore what :meth:`state_dict` returned."""


class LiveTeacher(TeacherWeights):
    """The student's current parameters, without gradient."""

    @contextmanager
    def swap_in(self, student: nn.Module) -> Iterator[None]:
        """Leave the student as it is."""
        yield
