"""Slow float64 RLCSD, RLSD, SRPO and contrastive OPSD, one token at a time, in probability space.

A text holds hidden states; one matrix turns them into logits, without gradient for the teachers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.reference import divergence as slow
from tests.reference.policy import group_advantages, surrogate


@dataclass(frozen=True)
class Text:
    group: int
    reward: float
    student: Tensor
    """``[tokens, hidden]``; likewise the teachers'."""
    ids: list[int]
    right: Tensor | None
    """None: no view."""
    wrong: list[Tensor]
    mask: list[bool]
    """Which tokens count."""
    old: list[float]
    correct: bool = False


def advantages(texts: Sequence[Text]) -> list[float]:
    rewards, groups = [t.reward for t in texts], [t.group for t in texts]
    return group_advantages(rewards, groups, scale="std", eps=1e-4)


def probs(hidden: Tensor, weight: Tensor, temperature: float = 1.0) -> list[float]:
    logits = (hidden @ weight.T).detach()
    return [p.item() for p in slow.softmax(logits, temperature)]


def contrast(text: Text, t: int, weight: Tensor, temperature: float = 1.0) -> float:
    assert text.right is not None
    token = text.ids[t]
    wrong = [probs(w[t], weight, temperature)[token] for w in text.wrong]
    right = probs(text.right[t], weight, temperature)[token]
    return math.log(right) - math.log(sum(wrong) / len(wrong))


def rlcsd_advantage(
    advantage: float,
    evidence: float,
    *,
    tau: float = 0.02,
    lam: float = 0.5,
    beta: float = 1.0,
    clip: float = 2.0,
    delta: float = 0.02,
) -> tuple[float, bool]:
    residual = max(-clip, min(clip, beta * lam * math.tanh(evidence / tau)))
    if not abs(residual) > delta:
        return advantage, False
    if advantage > 0:
        return max(0.0, advantage + residual), True
    if advantage < 0:
        return min(0.0, advantage + residual), True
    return 0.0, True


def rlcsd(
    texts: Sequence[Text],
    weight: Tensor,
    *,
    eta: float = 1.0,
    per_rollout: bool = False,
    temperature: float = 1.0,
    on_policy: bool = True,
    **settings: float,
) -> Tensor:
    rows: list[tuple[list[Tensor], list[Tensor]]] = []
    for text, advantage in zip(texts, advantages(texts), strict=True):
        if text.right is None or not text.wrong:
            continue
        still: list[Tensor] = []
        moved: list[Tensor] = []
        for t, token in enumerate(text.ids):
            if not text.mask[t]:
                continue
            evidence = contrast(text, t, weight, temperature)
            shaped, is_moved = rlcsd_advantage(advantage, evidence, **settings)
            loss = surrogate(
                text.student[t] @ weight.T,
                token,
                old_logprob=None if on_policy else text.old[t],
                advantage=shaped,
                clip_low=0.2,
                clip_high=0.2,
                temperature=temperature,
            )
            (moved if is_moved else still).append(loss)
        rows.append((still, moved))
    if per_rollout:
        kept = [row for row in rows if row[0] or row[1]]
        return sum((mean(s) + eta * mean(m) for s, m in kept), zero()) / len(kept)
    still, moved = ([loss for row in rows for loss in row[path]] for path in (0, 1))
    return mean(still) + eta * mean(moved)


def rlsd(
    texts: Sequence[Text],
    weight: Tensor,
    *,
    lam: float = 0.5,
    clip: float = 0.2,
    contrasted: bool = False,
) -> Tensor:
    losses = []
    for text, advantage in zip(texts, advantages(texts), strict=True):
        if text.right is None or (contrasted and not text.wrong):
            continue
        for t, token in enumerate(text.ids):
            if not text.mask[t]:
                continue
            if contrasted:
                gap = contrast(text, t, weight)
            else:
                own = probs(text.student[t], weight)[token]
                gap = math.log(probs(text.right[t], weight)[token]) - math.log(own)
            sign = (advantage > 0) - (advantage < 0)
            scaled = max(1 - clip, min(1 + clip, math.exp(sign * gap)))
            losses.append(
                surrogate(
                    text.student[t] @ weight.T,
                    token,
                    old_logprob=None,
                    advantage=advantage * ((1 - lam) + lam * scaled),
                    clip_low=0.2,
                    clip_high=0.2,
                )
            )
    return mean(losses)


def srpo(
    texts: Sequence[Text],
    weight: Tensor,
    *,
    beta: float = 1.0,
    by_verdict: bool = False,
    settings: slow.Settings,
) -> Tensor:
    losses: list[Tensor] = []
    distilled: list[tuple[Tensor, float]] = []
    for text, advantage in zip(texts, advantages(texts), strict=True):
        well = text.correct if by_verdict else advantage > 0
        for t, token in enumerate(text.ids):
            if not text.mask[t]:
                continue
            logits = text.student[t] @ weight.T
            if well or text.right is None:
                options = {"old_logprob": None, "clip_low": 0.2, "clip_high": 0.2}
                losses.append(surrogate(logits, token, advantage=advantage, **options))  # type: ignore[arg-type]
                continue
            teacher = (text.right[t] @ weight.T).detach()
            entropy = -sum(p * math.log(p) for p in probs(text.right[t], weight))
            value = slow.token_divergence(logits, teacher, settings)
            distilled.append((value, math.exp(-beta * entropy)))
    trust = sum(w for _, w in distilled) / max(len(distilled), 1)
    losses += [value * (w / trust) for value, w in distilled]
    return mean(losses)


def opsd_contrast(
    texts: Sequence[Text],
    weight: Tensor,
    *,
    alpha: float = 0.5,
    floor: float = -30.0,
    gate_tau: float | None = 1.0,
    settings: slow.Settings,
) -> Tensor:
    losses = []
    for text in texts:
        if text.right is None or not text.wrong:
            continue
        for t in range(len(text.ids)):
            if not text.mask[t]:
                continue
            right = probs(text.right[t], weight)
            each = [probs(w[t], weight) for w in text.wrong]
            wrong = [sum(column) / len(each) for column in zip(*each, strict=True)]
            powers = [
                p ** (1 + alpha) / max(q, math.exp(floor)) ** alpha
                for p, q in zip(right, wrong, strict=True)
            ]
            target = torch.tensor([x / sum(powers) for x in powers], dtype=torch.float64).log()
            kl = sum(p * math.log(p / q) for p, q in zip(right, wrong, strict=True))
            gate = 1.0 if gate_tau is None else kl / (kl + gate_tau)
            student = text.student[t] @ weight.T
            losses.append(gate * slow.token_divergence(student, target, settings))
    return mean(losses)


def zero() -> Tensor:
    return torch.zeros((), dtype=torch.float64)


def mean(losses: Sequence[Tensor]) -> Tensor:
    return sum(losses, zero()) / max(len(losses), 1)
