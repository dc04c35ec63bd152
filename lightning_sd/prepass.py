"""Gather an objective's signals: what it may read of a micro-batch before the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_sd.functional.divergence import DivergenceSpec, divergence
from lightning_sd.functional.linear import default_chunk
from lightning_sd.loss import ScaledLogits, row_blocks
from lightning_sd.objectives import Objective, sampled_logprobs
from lightning_sd.scoring import LogitsSource, MixedScores, Scores
from lightning_sd.signals import Signals
from lightning_sd.types import Rollout, TeacherView, contrast

DIVERGENCES = {
    "forward_kl": DivergenceSpec(kind="forward_kl"),
    "reverse_kl": DivergenceSpec(kind="reverse_kl"),
}


@torch.no_grad()
def gather_signals(
    objective: Objective,
    rollouts: Sequence[Rollout],
    views: Sequence[TeacherView | None],
    active: Sequence[int],
    student: Scores | None,
    teacher: LogitsSource | None,
    contrasts: Sequence[LogitsSource],
    *,
    device: torch.device,
    step: int,
    tokenizer: Any,
    total: Callable[[Tensor], Tensor],
) -> Signals:
    """What is known of the rollouts, and whatever else the objective ``reads``.

    Args:
        objective: Who asks.
        rollouts: All of the micro-batch: advantages compare a rollout with its siblings.
        views: The teacher's, one a rollout or None.
        active: Numbers of the rollouts that take part.
        student: Scores of their tokens, packed; None if there is no token.
        teacher: Likewise; zeros where there is no view. None: no teacher at all.
        contrasts: The k-th contrasting view's; zeros where a rollout has fewer.
        device: Of the tokens.
        step: Optimizer steps taken.
        tokenizer: The student's.
        total: Sums over ranks.
    """
    lengths = [len(rollouts[i].ids) for i in active]
    ids = torch.tensor(
        [token for i in active for token in rollouts[i].ids], dtype=torch.long, device=device
    )
    per_token = torch.tensor(lengths, dtype=torch.long, device=device)
    rows = torch.tensor(active, dtype=torch.long, device=device).repeat_interleave(per_token)
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    positions = torch.arange(len(ids), device=device)
    for start, length in zip(starts, lengths, strict=False):
        positions[start : start + length] -= start
    optional: dict[str, Tensor] = {}
    reads = objective.reads
    if student is not None and reads & {"student", "forward_kl", "reverse_kl"}:
        facts = token_facts(student, ids, objective.temperature)
        optional["student_logprobs"], optional["student_entropy"] = facts
    unseen = torch.tensor([views[i] is None for i in active], dtype=torch.bool, device=device)
    # Zeros stood in for their scores, which make a distribution all the same.
    unseen = unseen.repeat_interleave(per_token)
    if teacher is not None and "teacher" in reads:
        logprobs, entropy = token_facts(teacher, ids, objective.temperature)
        optional["teacher_logprobs"] = logprobs.masked_fill(unseen, 0.0)
        optional["teacher_entropy"] = entropy.masked_fill(unseen, 0.0)
    if student is not None and teacher is not None:
        for name in reads & DIVERGENCES.keys():
            kl = whole_divergence(student, teacher, ids, objective.temperature, DIVERGENCES[name])
            optional[name] = kl.masked_fill(unseen, 0.0)
    if contrasts and "contrasts" in reads:
        columns = []
        for k, scores in enumerate(contrasts):
            has = torch.tensor([contrast(views[i], k) is not None for i in active], device=device)
            values = token_facts(scores, ids, objective.temperature)[0]
            present = has.repeat_interleave(per_token)
            columns.append(values.masked_fill(~present, torch.nan))
        optional["contrast_logprobs"] = torch.stack(columns, -1)
    if objective.needs_old_logprobs:
        old = [v for i in active for v in rollouts[i].logprobs or [math.nan] * len(rollouts[i].ids)]
        optional["old_logprobs"] = torch.tensor(old, dtype=torch.float32, device=device)
    return Signals(
        **row_signals(rollouts, views),
        ids=ids,
        rows=rows,
        positions=positions,
        step=step,
        tokenizer=tokenizer,
        total=total,
        **optional,
    )


def row_signals(
    rollouts: Sequence[Rollout], views: Sequence[TeacherView | None]
) -> dict[str, Tensor]:
    """The part of the signals that has one entry a rollout; on the CPU."""
    rewards = [r.verdict.reward if r.verdict else 0.0 for r in rollouts]
    return {
        # By name: `bf16-true` sets the default dtype to bfloat16.
        "rewards": torch.tensor(rewards, dtype=torch.float32),
        "groups": torch.tensor([r.group for r in rollouts], dtype=torch.long),
        "correct": torch.tensor(
            [bool(r.verdict and r.verdict.correct) for r in rollouts], dtype=torch.bool
        ),
        "finished": torch.tensor([r.finished for r in rollouts], dtype=torch.bool),
        "lengths": torch.tensor([len(r.ids) for r in rollouts], dtype=torch.long),
        "sampled": torch.tensor([r.origin == "student" for r in rollouts], dtype=torch.bool),
        "seen": torch.tensor([view is not None for view in views], dtype=torch.bool),
    }


def token_facts(scores: LogitsSource, ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, and the entropy there, without a graph.

    Args:
        scores: Of N tokens.
        ids: ``[N]``.
        temperature: Of the logits.

    Returns:
        Both ``[N]``, float32 or wider.
    """
    logits = ScaledLogits(scores, 1 / temperature)

    def facts(part: slice) -> Tensor:
        found = logits(part)
        blocks = [
            torch.stack(sampled_logprobs(found[rows], ids[part][rows]), -1)
            for rows in row_blocks(found)
        ]
        return torch.cat(blocks)

    both = _by_chunks(facts, scores)
    return both[:, 0], both[:, 1]


def whole_divergence(
    student: LogitsSource,
    teacher: LogitsSource,
    ids: Tensor,
    temperature: float,
    spec: DivergenceSpec,
) -> Tensor:
    """The divergence at each token, ``[N]``, without a graph."""
    ours, theirs = (ScaledLogits(scores, 1 / temperature) for scores in (student, teacher))

    def value(part: slice) -> Tensor:
        return divergence(ours(part), theirs(part), ids[part], spec).value

    return _by_chunks(value, student)


def _by_chunks(function: Callable[[slice], Tensor], scores: LogitsSource) -> Tensor:
    size = default_chunk(_vocab(scores))
    parts = [slice(s, min(s + size, len(scores))) for s in range(0, max(len(scores), 1), size)]
    return torch.cat([function(part) for part in parts])


def _vocab(scores: LogitsSource) -> int:
    while isinstance(scores, MixedScores):
        scores = scores.parts[0]
    return scores.hidden.shape[-1] if scores.head is None else scores.head.weight.shape[0]
