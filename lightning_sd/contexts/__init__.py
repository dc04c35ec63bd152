"""Teacher contexts: what the self-teacher sees. One file a method."""

from lightning_sd.contexts.base import HostsTeacherContext, TeacherContext
from lightning_sd.contexts.demonstration import Demonstration
from lightning_sd.contexts.none import BinaryReward
from lightning_sd.contexts.reference import ReferenceSolution
from lightning_sd.contexts.same import SameQuestion
from lightning_sd.contexts.sibling import SiblingDemonstration
from lightning_sd.contexts.step_aligned import StepAlignedCritique

__all__ = [
    "BinaryReward",
    "Demonstration",
    "HostsTeacherContext",
    "ReferenceSolution",
    "SameQuestion",
    "SiblingDemonstration",
    "StepAlignedCritique",
    "TeacherContext",
]
