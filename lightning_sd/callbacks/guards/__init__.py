"""Guards against the known collapses of on-policy training."""

from lightning_sd.callbacks.guards.base import CollapseError, CollapseGuard
from lightning_sd.callbacks.guards.rules import (
    DivergenceGuard,
    EntropyGuard,
    LengthGuard,
    RepetitionGuard,
    RewardGuard,
    StyleGuard,
)
from lightning_sd.callbacks.guards.teacher import TeacherGuard

__all__ = [
    "CollapseError",
    "CollapseGuard",
    "DivergenceGuard",
    "EntropyGuard",
    "LengthGuard",
    "RepetitionGuard",
    "RewardGuard",
    "StyleGuard",
    "TeacherGuard",
]
