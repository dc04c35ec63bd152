"""Teacher contexts: what the self-teacher sees. One file a method."""

from lightning_sd.contexts.base import HostsTeacherContext, TeacherContext
from lightning_sd.contexts.none import BinaryReward
from lightning_sd.contexts.reference import ReferenceSolution
from lightning_sd.contexts.same import SameQuestion
from lightning_sd.contexts.step_aligned import StepAlignedCritique

__all__ = [
    "BinaryReward",
    "HostsTeacherContext",
    "ReferenceSolution",
    "SameQuestion",
    "StepAlignedCritique",
    "TeacherContext",
]
