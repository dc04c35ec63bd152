"""Callbacks for a trainer: sample tables, before-and-after tables, exports and predictions."""

from lightning_sd.callbacks.advantages import AdvantageAnalysis
from lightning_sd.callbacks.answer_rows import AnswerRows
from lightning_sd.callbacks.before_after import BeforeAfter
from lightning_sd.callbacks.export import ExportPretrained
from lightning_sd.callbacks.predictions import PredictionWriter
from lightning_sd.callbacks.samples import SampleTable

__all__ = [
    "AdvantageAnalysis",
    "AnswerRows",
    "BeforeAfter",
    "ExportPretrained",
    "PredictionWriter",
    "SampleTable",
]
