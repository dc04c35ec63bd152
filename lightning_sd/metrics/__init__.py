"""Metrics of answers and advantages, as torchmetrics metrics that work in any project."""

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
    build_advantage_metrics,
)
from lightning_sd.metrics.answers import (
    AvgAtK,
    MajAtK,
    MeanLength,
    MeanReward,
    PassAtK,
    QuestionMetric,
    build_answer_metrics,
    list_question_rows,
    update_answers,
)
from lightning_sd.metrics.intervals import Estimate
from lightning_sd.metrics.localization import Localization, localize
from lightning_sd.metrics.style import STYLE_WORDS, StyleMass, classify_tokens, sum_style_mass

__all__ = [
    "STYLE_WORDS",
    "AbsoluteMassAfterError",
    "AdvantageMetric",
    "AvgAtK",
    "Estimate",
    "Localization",
    "MajAtK",
    "MathAdvantage",
    "MeanLength",
    "MeanReward",
    "NegativeMassAfterError",
    "PassAtK",
    "PrefixAdvantage",
    "PrefixSign",
    "QuestionMetric",
    "StepAUROC",
    "StyleAdvantage",
    "StyleMass",
    "StyleShare",
    "TaskAdvantage",
    "TokenAUROC",
    "build_advantage_metrics",
    "build_answer_metrics",
    "classify_tokens",
    "list_question_rows",
    "localize",
    "sum_style_mass",
    "update_answers",
]
