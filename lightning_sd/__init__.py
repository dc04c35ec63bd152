"""lightning_sd: self-distillation of language models with PyTorch Lightning.

Names are imported when they are first used, so that ``import lightning_sd`` and ``--help`` stay
quick.
"""

from __future__ import annotations

from lightning_sd.lazy import lazy
from lightning_sd.version import __version__

_HOMES = {
    "lightning_sd.analysis": ("localise", "style_mass"),
    "lightning_sd.callbacks": (
        "AdvantageAnalysis",
        "AnswerRows",
        "BeforeAfter",
        "ExportPretrained",
        "PredictionWriter",
        "SampleTable",
    ),
    "lightning_sd.contexts": (
        "BinaryReward",
        "CleanInput",
        "ContrastiveHints",
        "CritiqueReflector",
        "Demonstration",
        "InsightCurator",
        "LMCurator",
        "LMReflector",
        "ReferenceRubric",
        "ReferenceSolution",
        "Reflection",
        "RubricConditioned",
        "SameQuestion",
        "SiblingDemonstration",
        "StepAlignedCritique",
        "TeacherContext",
    ),
    "lightning_sd.critics": ("Critic", "LMCritic", "RuleCritic", "ServerCritic", "VLLMCritic"),
    "lightning_sd.data": ("CritiqueCache", "CritiqueDataModule"),
    "lightning_sd.metrics": (
        "AvgAtK",
        "MajAtK",
        "MeanLength",
        "MeanReward",
        "PassAtK",
        "advantage_metrics",
        "answer_metrics",
    ),
    "lightning_sd.models": ("LoRA", "LoadedModel", "ModelSource", "PretrainedModel"),
    "lightning_sd.module": ("SelfDistillModule",),
    "lightning_sd.objectives": (
        "ContrastiveDistillation",
        "ContrastivePolicy",
        "Distillation",
        "EchoDistill",
        "LigerDistillation",
        "Mixture",
        "Objective",
        "PolicyGradient",
        "RoutedPolicy",
        "SampledToken",
        "SignAnchoredPolicy",
        "TokenWeight",
    ),
    "lightning_sd.rollout": ("Sampler", "TransformersSampler"),
    "lightning_sd.supervised": ("SupervisedModule",),
    "lightning_sd.rubrics": ("Criterion", "Rubric", "parse_rubric"),
    "lightning_sd.tasks": (
        "ArithmeticTask",
        "DatasetTask",
        "ProgramTask",
        "RareArithmeticTask",
        "ReasoningGymTask",
        "RubricTask",
        "RubricWritingTask",
        "SpokenDigitsTask",
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

__getattr__, __dir__, _names = lazy(__name__, _HOMES)
__all__ = ["__version__", *_names]
