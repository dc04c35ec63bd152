"""EchoDistill's loss as its formula reads, in loops over groups, rollouts, tokens and words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass
class Text:
    """One completion: logits ``[tokens, vocab]`` of both sides, and what is known of it."""

    group: int
    student: Tensor
    teacher: Tensor
    ids: Sequence[int]
    reward: float = 0.0
    by_teacher: bool = False


def log_softmax(logits: Tensor) -> list[Tensor]:
    largest = max(logits.tolist())
    total = sum((value - largest).exp() for value in logits)
    return [value - largest - total.log() for value in logits]


def divergence(text: Text, kind: str) -> Tensor | float:
    """Mean over the text's tokens."""
    total: Tensor | float = 0.0
    for student, teacher in zip(text.student, text.teacher, strict=True):
        ours, theirs = log_softmax(student), log_softmax(teacher)
        for s, t in zip(ours, theirs, strict=True):
            total = total + (t.exp() * (t - s) if kind == "forward_kl" else s.exp() * (s - t))
    return total / len(text.ids)


def sequence_logprob(logits: Tensor, ids: Sequence[int]) -> Tensor | float:
    return sum(log_softmax(row)[token] for row, token in zip(logits, ids, strict=True))


def loss(
    texts: Sequence[Text],
    *,
    kind: str = "forward_kl",
    bonus: float = 0.5,
    clip: float = 0.2,
    dual_clip: float | None = None,
    policy: float = 1.0,
    distill: float = 1.0,
) -> Tensor | float:
    """``policy * mean over answers + distill * mean over the teacher's texts``."""
    written = {text.group: text for text in texts if text.by_teacher}
    answers = [text for text in texts if not text.by_teacher]
    surrogate: Tensor | float = 0.0
    for group in {text.group for text in answers}:
        own = [text for text in answers if text.group == group]
        near = 0.0
        if group in written:
            near = math.exp(-float(divergence(written[group], kind).detach()))
        shaped = [
            min(max(text.reward + (bonus * near if text.reward > 0 else 0.0), -1.0), 2.0)
            for text in own
        ]
        mean = sum(shaped) / len(shaped)
        std = math.sqrt(sum((value - mean) ** 2 for value in shaped) / len(shaped))
        for text, reward in zip(own, shaped, strict=True):
            advantage = (reward - mean) / std if std > 1e-9 else 0.0
            gap = sequence_logprob(text.student, text.ids) - float(
                sequence_logprob(text.teacher, text.ids)
            )
            ratio = gap.exp() if isinstance(gap, Tensor) else math.exp(gap)
            value = math.exp(float(gap.detach()) if isinstance(gap, Tensor) else gap)
            low = min(max(value, 1 - clip), 1 + clip)
            # min(rho A, clip(rho) A), whose second branch has no gradient once it is clipped.
            if dual_clip is not None and advantage < 0 and value > dual_clip:
                surrogate = surrogate - dual_clip * advantage
            elif value * advantage <= low * advantage:
                surrogate = surrogate - ratio * advantage
            else:
                surrogate = surrogate - low * advantage
    total = policy * surrogate / max(len(answers), 1)
    for text in written.values():
        total = total + distill * divergence(text, kind) / len(written)
    return total
