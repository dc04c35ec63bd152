"""Tasks: questions in disjoint splits, and verifiers."""

from lightning_sd.tasks.arithmetic import ArithmeticTask
from lightning_sd.tasks.base import Split, StepChecked, Task

__all__ = ["ArithmeticTask", "Split", "StepChecked", "Task"]
