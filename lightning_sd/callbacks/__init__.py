"""Callbacks and plugins for a trainer: samples, exports, predictions, checkpoints."""

from lightning_sd.callbacks.advantages import AdvantageAnalysis
from lightning_sd.callbacks.answer_rows import AnswerRows
from lightning_sd.callbacks.before_after import BeforeAfter
from lightning_sd.callbacks.checkpoint_files import DamagedCheckpointError, find_last_good
from lightning_sd.callbacks.checkpoint_io import AtomicCheckpointIO
from lightning_sd.callbacks.export import ExportPretrained
from lightning_sd.callbacks.guards import (
    CollapseError,
    CollapseGuard,
    DivergenceGuard,
    EntropyGuard,
    LengthGuard,
    RepetitionGuard,
    RewardGuard,
    StyleGuard,
    TeacherGuard,
)
from lightning_sd.callbacks.lost_ranks import EndOnLostRank
from lightning_sd.callbacks.monitor import StepMonitor
from lightning_sd.callbacks.predictions import PredictionWriter
from lightning_sd.callbacks.progress import StepProgressBar
from lightning_sd.callbacks.report import TrainingReport
from lightning_sd.callbacks.resume import ExactResume
from lightning_sd.callbacks.sample_ahead import SampleAhead
from lightning_sd.callbacks.samples import SampleTable
from lightning_sd.callbacks.signals import SaveOnSignal
from lightning_sd.callbacks.trackio_logger import TrackioLogger

__all__ = [
    "AdvantageAnalysis",
    "AnswerRows",
    "AtomicCheckpointIO",
    "BeforeAfter",
    "CollapseError",
    "CollapseGuard",
    "DamagedCheckpointError",
    "DivergenceGuard",
    "EndOnLostRank",
    "EntropyGuard",
    "ExactResume",
    "ExportPretrained",
    "LengthGuard",
    "PredictionWriter",
    "RepetitionGuard",
    "RewardGuard",
    "SampleAhead",
    "SampleTable",
    "SaveOnSignal",
    "StepMonitor",
    "StepProgressBar",
    "StyleGuard",
    "TeacherGuard",
    "TrackioLogger",
    "TrainingReport",
    "find_last_good",
]
