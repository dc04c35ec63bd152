"""Whose weights the self-teacher has: frozen initial policy, live, or an average (EMA).

A teacher is no second model. It is the student's own module with other tensors in it: those of its
adapters or trainable weights are swapped for a shadow while the teacher scores, and put back. Only
trainable tensors have a shadow, in float32, outside ``parameters()``, so that optimizers, DDP and
the checkpoint of the student never see it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Shadow = dict[str, Tensor]


class TeacherWeights(ABC):
    """Which weights score the teacher's view. One instance serves one student."""

    def setup(self, student: nn.Module) -> None:  # noqa: B027 - the live teacher keeps nothing
        """Called once, with the initial student, before a checkpoint is loaded into it."""

    @abstractmethod
    def weights(self, student: nn.Module) -> Any:
        """A context manager inside which the student's module holds the teacher's weights."""

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
        for name, parameter in trainable(student):
            shadow = self._shadow[name] = self._shadow[name].to(parameter.device)
            shadow.lerp_(parameter.detach().to(shadow.dtype), self.rate)

    def state_dict(self) -> dict[str, Any]:
        """The average itself."""
        return {"shadow": {name: tensor.detach().cpu() for name, tensor in self._shadow.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the average back.

        Raises:
            ValueError: It belongs to another set of trainable weights.
        """
        found = {name: tensor.shape for name, tensor in state.get("shadow", {}).items()}
        wanted = {name: tensor.shape for name, tensor in self._shadow.items()}
        if found != wanted:
            odd = sorted({name for name, _ in found.items() ^ wanted.items()})[:3]
            raise ValueError(
                f"teacher: the checkpoint's EMA covers other weights than the student trains "
                f"(for example {odd}). Use the model, the LoRA settings and the kind of teacher "
                "with which it was written."
            )
        self._shadow = {name: tensor.clone() for name, tensor in state["shadow"].items()}


def trainable(student: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The student's parameters that the optimizer moves, by name."""
    return [(name, p) for name, p in student.named_parameters() if p.requires_grad]


def make_shadow(student: nn.Module) -> Shadow:
    """Copy the trainable weights, in float32 or wider so that small updates do not round away."""
    return {
        name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
        for name, p in trainable(student)
    }


@contextmanager
def swapped(student: nn.Module, shadow: Shadow) -> Iterator[None]:
    """Point the student's parameters at the shadow's tensors, then back at their own."""
    own: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for name, parameter in trainable(student):
            own.append((parameter, parameter.data))
            parameter.data = shadow[name].to(parameter.device, parameter.dtype)
        yield
    finally:
        # The very parameters that were swapped: whatever ran inside may have frozen some of them.
        for parameter, data in own:
            parameter.data = data


def fingerprint(shadow: Shadow, *, sampled: int = 4096) -> str:
    """Hash of names, shapes and an even sample of the values of each tensor."""
    digest = hashlib.sha256()
    for name in sorted(shadow):
        flat = shadow[name].detach().reshape(-1)
        part = flat[:: max(1, len(flat) // sampled)].cpu().double()
        digest.update(f"{name}{tuple(shadow[name].shape)}".encode())
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def _adapters_off_is_initial(student: nn.Module) -> bool:
    """Whether only adapters train, and they change nothing yet.

    Not so with adapters that were trained before, or start off zero (PiSSA and the like).
    """
    parameters = trainable(student)
    return (
        hasattr(student, "disable_adapter")
        and all("lora_" in name for name, _ in parameters)
        and not any(p.count_nonzero() for name, p in parameters if "_B." in name)
    )
