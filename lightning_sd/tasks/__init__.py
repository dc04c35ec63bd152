"""Tasks: questions in disjoint splits, and judges of their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sd._lazy import make_lazy_exports

if TYPE_CHECKING:
    from lightning_sd.tasks.base import RepairTask as RepairTask
    from lightning_sd.tasks.base import Split as Split
    from lightning_sd.tasks.base import Task as Task
    from lightning_sd.tasks.dataset import DatasetTask as DatasetTask
    from lightning_sd.tasks.programs import ProgramTask as ProgramTask
    from lightning_sd.tasks.reasoning_gym import ReasoningGymTask as ReasoningGymTask
    from lightning_sd.tasks.rows import RowsTask as RowsTask
    from lightning_sd.tasks.rubric_writing import RubricWritingTask as RubricWritingTask
    from lightning_sd.tasks.stream import StreamTask as StreamTask

# The worker process of a judge imports this package, and must not load torch.
__getattr__, __dir__, __all__ = make_lazy_exports(
    __name__,
    {
        "lightning_sd.tasks.base": ("RepairTask", "Split", "Task"),
        "lightning_sd.tasks.dataset": ("DatasetTask",),
        "lightning_sd.tasks.programs": ("ProgramTask",),
        "lightning_sd.tasks.reasoning_gym": ("ReasoningGymTask",),
        "lightning_sd.tasks.rows": ("RowsTask",),
        "lightning_sd.tasks.rubric_writing": ("RubricWritingTask",),
        "lightning_sd.tasks.stream": ("StreamTask",),
    },
)
