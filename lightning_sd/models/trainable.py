"""List the parameters that an optimizer updates."""

from __future__ import annotations

import torch
from torch import nn


def list_trainable(student: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the names and parameters that require a gradient."""
    return [(name, p) for name, p in student.named_parameters() if p.requires_grad]


@torch.no_grad()
def broadcast_trainable(model: nn.Module, device: torch.device) -> None:
    """Give every rank the trainable parameters of rank 0; does nothing in a single process.

    DDP does the same, but after the teacher has copied the student: adapters that each rank drew at
    random would leave each rank with a teacher of its own.

    Args:
        model: The student, on any device.
        device: A device on which the process group communicates.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for _, parameter in list_trainable(model):
        value = parameter.detach().to(device, copy=True)
        torch.distributed.broadcast(value, src=0)
        parameter.copy_(value)
