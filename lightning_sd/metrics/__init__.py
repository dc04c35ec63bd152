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

__all__ = [
    "AbsoluteMassAfterError",
    "AdvantageMetric",
    "AvgAtK",
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
    "StyleShare",
    "TaskAdvantage",
    "TokenAUROC",
    "advantage_metrics",
    "answer_metrics",
    "question_rows",
    "update_answers",
]
