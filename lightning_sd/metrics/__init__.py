"""Metrics, each a torchmetrics ``Metric`` that works in any project."""

from lightning_sd.metrics.answers import (
    AvgAtK,
    MajAtK,
    MeanLength,
    PassAtK,
    answer_metrics,
    question_rows,
    update_answers,
)

__all__ = [
    "AvgAtK",
    "MajAtK",
    "MeanLength",
    "PassAtK",
    "answer_metrics",
    "question_rows",
    "update_answers",
]
