"""Slow float64 losses, written from the formulas in probability space, one element at a time.

Nothing here is shared with the package: no log-softmax, no packing, no chunks, no gradients by
hand. Scalars are 0-dimensional float64 tensors, so autograd gives the reference gradient.

    forward KL  sum_v T (log T - log S)
    reverse KL  sum_v S (log S - log T)
    JS          beta KL(T || M) + (1 - beta) KL(S || M),  M = beta T + (1 - beta) S
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_MASS = math.exp(-1e-7)
"""The k tokens never count as holding more than this, so that the rest has a logarithm."""


@dataclass(frozen=True)
class Settings:
    kind: str = "forward_kl"
    beta: float = 0.5
    top_k: int | None = None
    support: str = "student"
    tail: bool = True
    element_clip: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    token_clip: float | None = None
    importance_clip: float | None = None
    temperature: float = 1.0
    reduction: str = "token"


def softmax(logits: Tensor, temperature: float = 1.0) -> list[Tensor]:
    scaled = [value / temperature for value in logits.double()]
    top = max(value.item() for value in scaled)
    weights = [(value - top).exp() for value in scaled]
    total = sum(weights[1:], weights[0])
    return [weight / total for weight in weights]


def categories(
    student: list[Tensor], teacher: list[Tensor], settings: Settings
) -> tuple[list[Tensor], list[Tensor]]:
    """The two distributions on what is compared: all tokens, k of them, or k and the rest."""
    k = settings.top_k
    if k is None:
        return student, teacher
    chooser = student if settings.support == "student" else teacher
    chosen = sorted(range(len(chooser)), key=lambda v: -chooser[v].item())[:k]
    return _project(student, chosen, settings.tail), _project(teacher, chosen, settings.tail)


def _project(probs: list[Tensor], chosen: list[int], tail: bool) -> list[Tensor]:
    top = [probs[v] for v in chosen]
    mass = sum(top[1:], top[0])
    if tail:
        return [*top, 1 - mass.clamp(max=MOST_MASS)]
    return [p / mass for p in top]


def bounded(student: list[Tensor], teacher: list[Tensor], settings: Settings) -> list[Tensor]:
    """The teacher, at least and at most so many times the student, as plain numbers."""
    result = []
    for s, t in zip(student, teacher, strict=True):
        value = t.item()
        if settings.ratio_low is not None:
            value = max(value, settings.ratio_low * s.item())
        if settings.ratio_high is not None:
            value = min(value, settings.ratio_high * s.item())
        result.append(torch.tensor(value, dtype=torch.float64))
    return result


def _x_log_ratio(x: Tensor, y: Tensor) -> Tensor:
    """x log(x / y), 0 at x = 0."""
    return x * 0.0 if x.item() == 0 else x * (x.log() - y.log())


def elements(student: list[Tensor], teacher: list[Tensor], settings: Settings) -> list[Tensor]:
    if settings.kind == "forward_kl":
        return [_x_log_ratio(t, s) for s, t in zip(student, teacher, strict=True)]
    if settings.kind == "reverse_kl":
        return [_x_log_ratio(s, t) for s, t in zip(student, teacher, strict=True)]
    beta, result = settings.beta, []
    for s, t in zip(student, teacher, strict=True):
        m = beta * t + (1 - beta) * s
        result.append(beta * _x_log_ratio(t, m) + (1 - beta) * _x_log_ratio(s, m))
    return result


def token_divergence(student_logits: Tensor, teacher_logits: Tensor, settings: Settings) -> Tensor:
    """One token's divergence, ``[vocab]`` each."""
    student = softmax(student_logits, settings.temperature)
    teacher = softmax(teacher_logits.detach(), settings.temperature)
    total = torch.zeros((), dtype=torch.float64)
    student, teacher = categories(student, teacher, settings)
    for element in elements(student, bounded(student, teacher, settings), settings):
        bound = settings.element_clip
        total = total + (element if bound is None or element.item() <= bound else bound)
    return total


def token_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    settings: Settings,
    *,
    token: int = 0,
    old_logprob: float | None = None,
) -> Tensor:
    loss = token_divergence(student_logits, teacher_logits, settings)
    if settings.token_clip is not None and loss.item() > settings.token_clip:
        loss = torch.tensor(settings.token_clip, dtype=torch.float64) + 0 * student_logits.sum()
    if settings.importance_clip is not None and old_logprob is not None:
        now = softmax(student_logits, settings.temperature)[token].item()
        loss = loss * min(now / math.exp(old_logprob), settings.importance_clip)
    return loss


def mean_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    mask: Tensor,
    settings: Settings,
    *,
    ids: Tensor,
    old_logprobs: Tensor | None = None,
) -> Tensor:
    """Mean over masked tokens, or over each row's first; logits ``[rows, tokens, vocab]``."""
    rows: list[list[Tensor]] = []
    for r in range(mask.shape[0]):
        row = []
        for t in range(mask.shape[1]):
            if mask[r, t]:
                row.append(
                    token_loss(
                        student_logits[r, t],
                        teacher_logits[r, t],
                        settings,
                        token=int(ids[r, t]),
                        old_logprob=None if old_logprobs is None else old_logprobs[r, t].item(),
                    )
                )
        rows.append(row)
    return reduce(rows, settings.reduction)


def reduce(rows: Sequence[Sequence[Tensor]], reduction: str) -> Tensor:
    """Rows of token losses to one number; rows without tokens count for nothing."""
    if reduction == "token":
        tokens = [loss for row in rows for loss in row]
        return torch.stack(tokens).sum() / len(tokens)
    means = [torch.stack(list(row)).sum() / len(row) for row in rows if row]
    return torch.stack(means).sum() / len(means)
