"""Copy a student's trainable parameters, and swap the copy in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.sharding import (
    list_sharded,
    release_parameters,
    shard_like,
    to_full,
)
from lightning_sd.models.trainable import list_trainable

Shadow = dict[str, Tensor]


def make_shadow(student: nn.Module) -> Shadow:
    """Copy the trainable parameters, in float32 or wider so that small updates are not lost."""
    return {
        name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
        for name, p in list_trainable(student)
    }


@contextmanager
def swap_parameters(student: nn.Module, shadow: Shadow) -> Iterator[None]:
    """Point the student's parameters to the shadow's tensors, and afterwards back to their own.

    FSDP2 gathers from flat buffers of its own, so the shards of a sharded student are overwritten
    and afterwards restored; it is not gathered inside the context nor after it.
    """
    if list_sharded(student):
        with _overwrite_shards(student, shadow):
            yield
        return
    own: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for name, parameter in list_trainable(student):
            own.append((parameter, parameter.data))
            parameter.data = shadow[name].to(parameter.device, parameter.dtype)
        yield
    finally:
        # Not `trainable(student)` again: code inside the context may have frozen some parameters.
        for parameter, data in own:
            parameter.data = data


@contextmanager
def _overwrite_shards(student: nn.Module, shadow: Shadow) -> Iterator[None]:
    release_parameters(student)
    own: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for name, parameter in list_trainable(student):
            local = parameter.to_local()  # type: ignore[attr-defined]
            own.append((local, local.clone()))
            local.copy_(shadow[name].to_local())  # type: ignore[attr-defined]
    try:
        yield
    finally:
        release_parameters(student)
        with torch.no_grad():
            for local, values in own:
                local.copy_(values)


def fingerprint(shadow: Shadow, *, sampled: int = 4096) -> str:
    """Hash names, shapes and an evenly spaced sample of the values of each tensor."""
    digest = hashlib.sha256()
    for name in sorted(shadow):
        flat = to_full(shadow[name].detach()).reshape(-1)
        part = flat[:: max(1, len(flat) // sampled)].cpu().double()
        digest.update(f"{name}{tuple(shadow[name].shape)}".encode())
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def pack_shadow(shadow: Shadow) -> dict[str, Any]:
    """Return the shadow as a checkpoint holds it."""
    return {"shadow": {name: to_full(tensor.detach()).cpu() for name, tensor in shadow.items()}}


def restore_shadow(state: dict[str, Any], shadow: Shadow, kind: str) -> Shadow:
    """Restore a shadow from a checkpoint.

    Args:
        state: What :func:`pack_shadow` returned.
        shadow: The shadow that it replaces.
        kind: Name of the teacher in the error message.

    Raises:
        ValueError: The checkpoint's shadow covers another set of trainable parameters.
    """
    found = {name: tensor.shape for name, tensor in state.get("shadow", {}).items()}
    wanted = {name: tensor.shape for name, tensor in shadow.items()}
    if found != wanted:
        odd = sorted({name for name, _ in found.items() ^ wanted.items()})[:3]
        raise ValueError(
            f"teacher: the checkpoint's {kind} covers other parameters than the student trains "
            f"(for example {odd}). Use the model, the LoRA settings and the teacher with which "
            "the checkpoint was written."
        )
    return {name: shard_like(tensor, shadow[name]) for name, tensor in state["shadow"].items()}
