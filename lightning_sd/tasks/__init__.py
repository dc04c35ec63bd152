"""Tasks: questions in disjoint splits, and judges of their answers."""

from lightning_sd.tasks.base import RepairTask, Split, Task
from lightning_sd.tasks.dataset import DatasetTask
from lightning_sd.tasks.programs import ProgramTask
from lightning_sd.tasks.reasoning_gym import ReasoningGymTask
from lightning_sd.tasks.rubric_writing import RubricWritingTask
from lightning_sd.tasks.stream import StreamTask

__all__ = [
    "DatasetTask",
    "ProgramTask",
    "ReasoningGymTask",
    "RepairTask",
    "RubricWritingTask",
    "Split",
    "StreamTask",
    "Task",
]
