"""Tasks: questions in disjoint splits, and verifiers."""

from lightning_sd.tasks.arithmetic import ArithmeticTask
from lightning_sd.tasks.base import Split, StepChecked, Task
from lightning_sd.tasks.dataset import DatasetTask
from lightning_sd.tasks.programs import ProgramTask
from lightning_sd.tasks.rare import RareArithmeticTask
from lightning_sd.tasks.reasoning_gym import ReasoningGymTask
from lightning_sd.tasks.rubric import RubricTask
from lightning_sd.tasks.rubric_writing import RubricWritingTask
from lightning_sd.tasks.spoken_digits import SpokenDigitsTask
from lightning_sd.tasks.stream import StreamTask

__all__ = [
    "ArithmeticTask",
    "DatasetTask",
    "ProgramTask",
    "RareArithmeticTask",
    "ReasoningGymTask",
    "RubricTask",
    "RubricWritingTask",
    "Split",
    "SpokenDigitsTask",
    "StepChecked",
    "StreamTask",
    "Task",
]
