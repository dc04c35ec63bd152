"""The initial policy as teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import nn

from lightning_sd.models.sharding import to_full
from lightning_sd.models.trainable import list_trainable
from lightning_sd.teachers.base import TeacherWeights
from lightning_sd.teachers.shadow import Shadow, fingerprint, make_shadow, swap_parameters


class FrozenTeacher(TeacherWeights):
    """The initial policy.

    With LoRA it is the model with its adapter switched off, so no copy is held. Adapters that
    already change the model are part of the initial policy and are copied.

    Checkpoints do not hold the copy. It is made again from the model source, and a fingerprint in
    the checkpoint shows whether the source still gives the same parameters.
    """

    writes_frozen: ClassVar[bool] = True

    def __init__(self) -> None:
        self._shadow: Shadow | None = None

    def setup(self, student: nn.Module) -> None:
        """Copy the trainable parameters, unless switching the adapter off restores them."""
        self._shadow = None if _is_initial_without_adapters(student) else make_shadow(student)

    @contextmanager
    def swap_in(self, student: Any) -> Iterator[None]:
        """Swap in the initial parameters."""
        if self._shadow is None:
            with student.disable_adapter():
                yield
        else:
            with swap_parameters(student, self._shadow):
                yield

    def state_dict(self) -> dict[str, Any]:
        """Return the fingerprint of the copy, if there is one."""
        return {} if self._shadow is None else {"fingerprint": fingerprint(self._shadow)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the model source gave the parameters with which training began.

        Raises:
            ValueError: It did not, so the teacher would differ from the one before.
        """
        if self._shadow is not None and state.get("fingerprint") != fingerprint(self._shadow):
            raise ValueError(
                "teacher: FrozenTeacher is the initial policy, but the model source now gives "
                "other parameters than those with which this checkpoint's training began. Set "
                "`model` to the original weights; the checkpoint's are loaded over them."
            )


def _is_initial_without_adapters(student: nn.Module) -> bool:
    """Tell whether only adapters train and they do not change the model yet.

    Adapters that were trained before, or that do not start at zero (PiSSA), do change it.
    """
    parameters = list_trainable(student)
    return (
        hasattr(student, "disable_adapter")
        and all("lora_" in name for name, _ in parameters)
        and not any(to_full(p.detach()).count_nonzero() for name, p in parameters if "_B." in name)
    )
