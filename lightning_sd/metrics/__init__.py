"""Metrics, each a torchmetrics ``Metric`` that works in any project."""

from lightning_sd.metrics.advantages import (
    AbsoluteMassAfterError,
    AdvantageMetric,
    MathAdvantage,
    NegativeMassAfterError,
    PrefixAdvantage,
    PrefixSign,
    StepAUROC,
    StyleAdvantage,
    StyleShare,
    TaskAdvantage,
    TokenAUROC,
    advantage_metrics,
)
from lightning_sd.metrics.answers import (
    AvgAtK,
    MajAtK,
    MeanLength,
    MeanReward,
    PassAtK,
    answer_metrics,
    question_rows,
    update_answers,
)
from lightning_sd.metrics.localization import Localisation, localise
from lightning_sd.metrics.style import STYLE_WORDS, StyleMass, style_mass

__all__ = [
    "STYLE_WORDS",
    "AbsoluteMassAfterError",
    "AdvantageMetric",
    "AvgAtK",
    "Localisation",
    "MajAtK",
    "MathAdvantage",
    "MeanLength",
    "MeanReward",
    "NegativeMassAfterError",
    "PassAtK",
    "PrefixAdvantage",
    "PrefixSign",
    "StepAUROC",
    "StyleAdvantage",
    "StyleMass",
    "StyleShare",
    "TaskAdvantage",
    "TokenAUROC",
    "advantage_metrics",
    "answer_metrics",
    "localise",
    "question_rows",
    "style_mass",
    "update_answers",
]
