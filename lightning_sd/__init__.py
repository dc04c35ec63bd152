"""lightning_sd: self-distillation of language models with PyTorch Lightning.

Names are imported when they are first used, so that ``import lightning_sd`` and ``--help`` stay
quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from lightning_sd.version import __version__

_HOMES = {
    "lightning_sd.contexts": (
        "BinaryReward",
        "ReferenceSolution",
        "SameQuestion",
        "StepAlignedCritique",
        "TeacherContext",
    ),
    "lightning_sd.critics": ("Critic", "LMCritic", "RuleCritic", "ServerCritic", "VLLMCritic"),
    "lightning_sd.data": ("CritiqueCache", "CritiqueDataModule"),
    "lightning_sd.metrics": ("AvgAtK", "MajAtK", "MeanLength", "PassAtK"),
    "lightning_sd.models": ("LoRA", "LoadedModel", "ModelSource", "PretrainedModel"),
    "lightning_sd.module": ("SelfDistillModule",),
    "lightning_sd.objectives": (
        "Distillation",
        "Mixture",
        "Objective",
        "PolicyGradient",
        "SampledToken",
        "TokenWeight",
    ),
    "lightning_sd.rollout": ("Sampler", "TransformersSampler"),
    "lightning_sd.supervised": ("SupervisedModule",),
    "lightning_sd.tasks": (
        "ArithmeticTask",
        "DatasetTask",
        "ReasoningGymTask",
        "StreamTask",
        "Task",
    ),
    "lightning_sd.signals": ("Signals",),
    "lightning_sd.teachers": (
        "EMATeacher",
        "FrozenTeacher",
        "LiveTeacher",
        "SnapshotTeacher",
        "TeacherWeights",
        "TrustRegionTeacher",
    ),
    "lightning_sd.types": ("Critique", "Question", "Rollout", "TeacherView", "Verdict"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
