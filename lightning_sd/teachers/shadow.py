"""Copies of the student's trainable weights, and swapping them in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.trainable import list_trainable

Shadow = dict[str, Tensor]


def make_shadow(student: nn.Module) -> Shadow:
    """Copy the trainable weights, in float32 or wider so that small updates do not round away."""
    return {
        name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
        for name, p in list_trainable(student)
    }


@contextmanager
def swapped(student: nn.Module, shadow: Shadow) -> Iterator[None]:
    """Point the student's parameters at the shadow's tensors, then back at their own."""
    own: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for name, parameter in list_trainable(student):
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


def shadow_state(shadow: Shadow) -> dict[str, Any]:
    """The shadow, as a checkpoint holds it."""
    return {"shadow": {name: tensor.detach().cpu() for name, tensor in shadow.items()}}


def restored(state: dict[str, Any], shadow: Shadow, kind: str) -> Shadow:
    """Take a shadow back from a checkpoint.

    Args:
        state: What :func:`shadow_state` gave.
        shadow: The one that it replaces.
        kind: What the checkpoint's is called, for the error.

    Raises:
        ValueError: It belongs to another set of trainable weights.
    """
    found = {name: tensor.shape for name, tensor in state.get("shadow", {}).items()}
    wanted = {name: tensor.shape for name, tensor in shadow.items()}
    if found != wanted:
        odd = sorted({name for name, _ in found.items() ^ wanted.items()})[:3]
        raise ValueError(
            f"teacher: the checkpoint's {kind} covers other weights than the student trains "
            f"(for example {odd}). Use the model, the LoRA settings and the kind of teacher "
            "with which it was written."
        )
    return {name: tensor.clone() for name, tensor in state["shadow"].items()}
