"""Teacher contexts: what the self-teacher sees. One file per method."""

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.clean_input import CleanInput
from lightning_sd.contexts.contrastive import ContrastiveHints
from lightning_sd.contexts.demonstration import Demonstration
from lightning_sd.contexts.host import ContextHost
from lightning_sd.contexts.none import NoContext
from lightning_sd.contexts.reference import ReferenceSolution
from lightning_sd.contexts.reference_rubric import ReferenceRubric
from lightning_sd.contexts.reflection import (
    CritiqueReflector,
    InsightCurator,
    LMCurator,
    LMReflector,
    Reflection,
)
from lightning_sd.contexts.rubric_conditioned import RubricConditioned
from lightning_sd.contexts.same import SameQuestion
from lightning_sd.contexts.sibling import SiblingDemonstration
from lightning_sd.contexts.step_aligned import StepAlignedCritique

__all__ = [
    "CleanInput",
    "ContextHost",
    "ContrastiveHints",
    "CritiqueReflector",
    "Demonstration",
    "InsightCurator",
    "LMCurator",
    "LMReflector",
    "NoContext",
    "ReferenceRubric",
    "ReferenceSolution",
    "Reflection",
    "RubricConditioned",
    "SameQuestion",
    "SiblingDemonstration",
    "StepAlignedCritique",
    "TeacherContext",
]
