"""RESD: reflections on failed attempts, a playbook of lessons, and a buffer of solutions."""

from lightning_sd.contexts.reflection.base import Curator, Note, Reflector
from lightning_sd.contexts.reflection.buffer import SolutionBuffer
from lightning_sd.contexts.reflection.concise import Concise
from lightning_sd.contexts.reflection.context import Reflection
from lightning_sd.contexts.reflection.critique_based import CritiqueReflector, InsightCurator
from lightning_sd.contexts.reflection.model_written import LMCurator, LMReflector
from lightning_sd.contexts.reflection.playbook import Addition, Item, Playbook

__all__ = [
    "Addition",
    "Concise",
    "CritiqueReflector",
    "Curator",
    "InsightCurator",
    "Item",
    "LMCurator",
    "LMReflector",
    "Note",
    "Playbook",
    "Reflection",
    "Reflector",
    "SolutionBuffer",
]
