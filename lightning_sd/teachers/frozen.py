"""The initial policy as teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from lightning_sd.models.trainable import list_trainable
from lightning_sd.teachers.base import TeacherWeights
from lightning_sd.teachers.shadow import Shadow, fingerprint, make_shadow, swapped


class FrozenTeacher(TeacherWeights):
    """The initial policy. With LoRA: the model with its adapter off, so no copy is held.

    Adapters that already change something are part of the policy, so these are copied.

    The copy is not written to checkpoints. It is made anew from the model source, and a
    fingerprint in the checkpoint tells whether that source still gives the same weights.
    """

    def __init__(self) -> None:
        self._shadow: Shadow | None = None

    def setup(self, student: nn.Module) -> None:
        """Copy the trainable weights, unless switching the adapter off gives them back."""
        self._shadow = None if _adapters_off_is_initial(student) else make_shadow(student)

    @contextmanager
    def weights(self, student: Any) -> Iterator[None]:
        """The student's module as it was before training."""
        if self._shadow is None:
            with student.disable_adapter():
                yield
        else:
            with swapped(student, self._shadow):
                yield

    def state_dict(self) -> dict[str, Any]:
        """The fingerprint of the copy, if there is one."""
        return {} if self._shadow is None else {"fingerprint": fingerprint(self._shadow)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the model source gave the weights with which training began.

        Raises:
            ValueError: It did not: the teacher would be another one than before.
        """
        if self._shadow is not None and state.get("fingerprint") != fingerprint(self._shadow):
            raise ValueError(
                "teacher: FrozenTeacher is the initial policy, but the model source now gives "
                "other weights than those with which this checkpoint's training began. Point "
                "`model` at the original weights; the checkpoint's are loaded over them."
            )


def _adapters_off_is_initial(student: nn.Module) -> bool:
    """Whether only adapters train, and they change nothing yet.

    Not so with adapters that were trained before, or start off zero (PiSSA and the like).
    """
    parameters = list_trainable(student)
    return (
        hasattr(student, "disable_adapter")
        and all("lora_" in name for name, _ in parameters)
        and not any(p.count_nonzero() for name, p in parameters if "_B." in name)
    )
