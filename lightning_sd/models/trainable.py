"""The parameters that an optimizer updates."""

from __future__ import annotations

from torch import nn


def trainable(student: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The student's parameters that the optimizer moves, by name."""
    return [(name, p) for name, p in student.named_parameters() if p.requires_grad]
