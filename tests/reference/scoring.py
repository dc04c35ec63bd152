"""Losses through a model's plain forward pass: padded, masked, one row at a time, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from tests.reference.divergence import Settings

Ids = Sequence[int]


def completion_logits(
    model: Any, prompt: Ids, completion: Ids, *, pads: int, side: Literal["left", "right"]
) -> Tensor:
    """Logits that predict each completion token, ``[completion, vocab]``.

    The row stands among pads, with the mask and the positions that make them harmless.
    """
    row = [*prompt, *completion]
    if side == "left":
        ids, mask = [0] * pads + row, [0] * pads + [1] * len(row)
        first = pads + len(prompt) - 1
    else:
        ids, mask = row + [0] * pads, [1] * len(row) + [0] * pads
        first = len(prompt) - 1
    positions = [max(sum(mask[: i + 1]) - 1, 0) for i in range(len(mask))]
    logits = model(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.tensor([mask]),
        position_ids=torch.tensor([positions]),
        use_cache=False,
    ).logits[0]
    # Position first + t has seen the prompt and t completion tokens, and predicts token t.
    return logits[first : first + len(completion)]


def loss_sum(
    student: Any,
    teacher: Any,
    student_prompts: Sequence[Ids],
    teacher_prompts: Sequence[Ids],
    completions: Sequence[Ids],
    settings: Settings,
    *,
    pads: int = 3,
    side: Literal["left", "right"] = "left",
) -> Tensor:
    """Sum of token divergences, teacher forced on the same tokens; vectorised over one row."""
    total = torch.zeros((), dtype=torch.float64)
    for own, others, completion in zip(student_prompts, teacher_prompts, completions, strict=True):
        if not completion:
            continue
        s = completion_logits(student, own, completion, pads=pads, side=side)
        with torch.no_grad():
            t = completion_logits(teacher, others, completion, pads=pads, side=side)
        total = total + _divergence(s.double().softmax(-1), t.double().softmax(-1), settings)
    return total


def _divergence(s: Tensor, t: Tensor, settings: Settings) -> Tensor:
    if settings.kind == "forward_kl":
        return (t * (t.log() - s.log())).sum()
    if settings.kind == "reverse_kl":
        return (s * (s.log() - t.log())).sum()
    m = settings.beta * t + (1 - settings.beta) * s
    forwards = (t * (t.log() - m.log())).sum()
    return settings.beta * forwards + (1 - settings.beta) * (s * (s.log() - m.log())).sum()
