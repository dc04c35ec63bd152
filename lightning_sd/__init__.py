"""lightning_sd: self-distillation of language models with PyTorch Lightning.

Names are imported when they are first used, so that ``import lightning_sd`` and ``--help`` stay
quick.
"""

from __future__ import annotations

from lightning_sd._lazy import make_lazy_exports

__version__ = "0.2.0"

_HOMES = {
    "lightning_sd.callbacks": (
        "AdvantageAnalysis",
        "AnswerRows",
        "AtomicCheckpointIO",
        "BeforeAfter",
        "DamagedCheckpointError",
        "ExactResume",
        "ExportPretrained",
        "PredictionWriter",
        "SampleTable",
        "SaveOnSignal",
        "StepMonitor",
        "StepProgressBar",
        "TrackioLogger",
        "TrainingReport",
        "find_last_good",
    ),
    "lightning_sd.contexts": (
        "NoContext",
        "CleanInput",
        "ContextHost",
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
    "lightning_sd.contexts.rubrics": ("Criterion", "Rubric", "parse_rubric"),
    "lightning_sd.critique": (
        "Critic",
        "CritiqueCache",
        "CritiqueRequest",
        "LMCritic",
        "RuleCritic",
        "ServerCritic",
        "VLLMCritic",
    ),
    "lightning_sd.data": ("CritiqueDataModule",),
    "lightning_sd.diagnostics.analysis": ("AnalysisReport", "analyze"),
    "lightning_sd.diagnostics.probe": ("ProbeReport", "Thresholds", "probe"),
    "lightning_sd.lab": (
        "ArithmeticTask",
        "HardArithmeticTask",
        "CreatureTask",
        "SpokenDigitsTask",
    ),
    "lightning_sd.metrics": (
        "AvgAtK",
        "Estimate",
        "MajAtK",
        "MeanLength",
        "MeanReward",
        "PassAtK",
        "build_advantage_metrics",
        "build_answer_metrics",
        "localize",
        "sum_style_mass",
    ),
    "lightning_sd.models": ("LoRA", "LoadedModel", "ModelSource", "PretrainedModel"),
    "lightning_sd.modules": ("SelfDistillModule", "SupervisedModule"),
    "lightning_sd.objectives": (
        "ContrastiveDistillation",
        "ContrastivePolicy",
        "Distillation",
        "EchoDistill",
        "InputSpec",
        "LogprobObjective",
        "Mixture",
        "Objective",
        "ObjectiveInputs",
        "PolicyGradient",
        "RoutedPolicy",
        "SampledToken",
        "SignAnchoredPolicy",
        "StepState",
        "TokenInputs",
        "TokenLoss",
        "TokenWeight",
    ),
    "lightning_sd.rollout": ("Completion", "Sampler", "TransformersSampler", "VLLMSampler"),
    "lightning_sd.tasks": (
        "DatasetTask",
        "ProgramTask",
        "ReasoningGymTask",
        "RubricWritingTask",
        "StreamTask",
        "Task",
    ),
    "lightning_sd.tasks.judges": (
        "AnswerJudge",
        "JudgeLimits",
        "JudgeProcess",
        "RewardJudge",
        "extract_answer",
        "report_answers",
    ),
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

__getattr__, __dir__, _names = make_lazy_exports(__name__, _HOMES)
__all__ = ["__version__", *_names]
