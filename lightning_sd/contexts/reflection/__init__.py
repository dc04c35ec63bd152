"""RESD: reflections on failures, a playbook of lessons, and a buffer of solutions."""

from lightning_sd.contexts.reflection.buffer import SolutionBuffer
from lightning_sd.contexts.reflection.concise import Concise
from lightning_sd.contexts.reflection.context import Reflection
from lightning_sd.contexts.reflection.lm import LMCurator, LMReflector
from lightning_sd.contexts.reflection.playbook import Addition, Item, Playbook
from lightning_sd.contexts.reflection.rule import CritiqueReflector, InsightCurator
from lightning_sd.contexts.reflection.writing import Curator, Note, Reflector

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
