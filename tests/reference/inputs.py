"""ObjectiveInputs of made-up rollouts, and the slow loop that averages their token losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_sd.objectives.inputs import ObjectiveInputs, StepState

STATE = StepState()


def make_inputs(lengths: Sequence[int], **given: Any) -> ObjectiveInputs:
    """All rollouts take part, each in a group of its own, unless ``given`` says otherwise."""
    number = len(lengths)
    rows = [row for row, length in enumerate(lengths) for _ in range(length)]
    defaults: dict[str, Any] = {
        "rewards": torch.zeros(number),
        "groups": torch.arange(number),
        "correct": torch.zeros(number, dtype=torch.bool),
        "finished": torch.ones(number, dtype=torch.bool),
        "lengths": torch.tensor(lengths),
        "by_student": torch.ones(number, dtype=torch.bool),
        "has_view": torch.ones(number, dtype=torch.bool),
        "ids": torch.zeros(len(rows), dtype=torch.long),
        "rows": torch.tensor(rows, dtype=torch.long),
        "positions": torch.tensor([t for n in lengths for t in range(n)], dtype=torch.long),
    }
    return ObjectiveInputs(**{**defaults, **given})


def slow_mean(
    losses: Sequence[Tensor],
    lengths: Sequence[int],
    *,
    kept: Sequence[bool] | None = None,
    scale: Sequence[float] | None = None,
    reduction: str = "token",
    constant: int = 1,
) -> Tensor:
    """The mean that an objective promises, one token after the other."""
    start, sums, counts = 0, [], []
    for length in lengths:
        total, count = torch.zeros((), dtype=torch.float64), 0
        for i in range(start, start + length):
            if kept is None or kept[i]:
                total = total + losses[i] * (1.0 if scale is None else scale[i])
                count += 1
        sums.append(total)
        counts.append(count)
        start += length
    if reduction == "token":
        return sum(sums, torch.zeros((), dtype=torch.float64)) / sum(counts)
    divisors = counts if reduction == "sequence" else [constant] * len(counts)
    means = [s / d for s, n, d in zip(sums, counts, divisors, strict=True) if n]
    return torch.stack(means).sum() / len(means)
