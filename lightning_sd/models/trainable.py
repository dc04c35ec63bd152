"""List the parameters that an optimizer updates."""

from __future__ import annotations

from torch import nn


def list_trainable(student: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the names and parameters that require a gradient."""
    return [(name, p) for name, p in student.named_parameters() if p.requires_grad]
