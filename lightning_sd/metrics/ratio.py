"""The base of all metrics here: a sum divided by a count."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class RatioMetric(Metric):
    """Divides a sum by a count; both are summed over processes.

    Processes with different numbers of items therefore give the mean over all items. Subclasses
    add to ``total`` and ``number`` in ``update``.
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool | None = True
    total: Tensor
    number: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Return the mean as a float64 scalar; nan before anything was counted."""
        return self.total / self.number
