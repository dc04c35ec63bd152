"""Masks of the masking experiment that know the task; ``AdvantageSign`` is the package's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from benchmarks.alignment_map.derivations import (
    NAMES,
    NOTATIONS,
    is_right_arithmetic,
    read_step,
)
from lightning_sd.metrics.spans import find_step_tokens, split_tokens
from lightning_sd.objectives.inputs import ObjectiveInputs, StepState
from lightning_sd.objectives.token_weights import TokenWeight
from lightning_sd.text.steps import parse_steps


@dataclass(frozen=True)
class FirstErrorMask(TokenWeight):
    """Keep the tokens before the first wrong step, or those from it on.

    A step is wrong if its stated result does not follow from its own operation, which the
    completion alone shows. All tokens of a completion without a wrong step are before it.
    """

    side: Literal["before", "from"] = "from"
    is_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.side not in ("before", "from"):
            raise ValueError(f"side={self.side!r}: choose before or from.")

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        lengths = torch.bincount(inputs.rows).tolist()
        firsts = [
            find_first_error(state.tokenizer, ids.tolist()) for ids in inputs.ids.split(lengths)
        ]
        first = torch.tensor(firsts, device=inputs.ids.device)[inputs.rows]
        reached = inputs.positions >= first
        return reached if self.side == "from" else ~reached


@dataclass(frozen=True)
class WithoutForm(TokenWeight):
    """Leave out choices of form: the notation of a step, and with ``order`` its expression."""

    order: bool = False
    is_mask: ClassVar[bool] = True

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        assert state.tokenizer is not None
        texts = (*NOTATIONS, *NAMES) if self.order else NOTATIONS
        ids = [state.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
        return ~torch.isin(inputs.ids, torch.tensor(ids, device=inputs.ids.device))


def find_first_error(tokenizer: Any, ids: list[int]) -> int:
    """Return the index of the first token of the first wrong step; ``len(ids)`` without one."""
    pieces = split_tokens(tokenizer, ids)
    trace = parse_steps(pieces.text)
    tokens = find_step_tokens(pieces.spans, trace.spans)
    for body, (start, _) in zip(trace.steps, tokens, strict=True):
        step = read_step(body)
        if step is not None and not is_right_arithmetic(step):
            return start
    return len(ids)
