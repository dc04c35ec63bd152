"""Gather an objective's signals: what it may read of a micro-batch before the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_sd.functional.divergence import DivergenceSpec
from lightning_sd.objectives import Objective
from lightning_sd.objectives.inputs import Signals
from lightning_sd.scoring import LogitsSource, Scores
from lightning_sd.scoring.statistics import token_facts, whole_divergence
from lightning_sd.types import Rollout, TeacherView, select_contrast

DIVERGENCES = {
    "forward_kl": DivergenceSpec(kind="forward_kl"),
    "reverse_kl": DivergenceSpec(kind="reverse_kl"),
}


@dataclass(frozen=True)
class Scored:
    """The tokens of the rollouts that take part, packed, under everybody who scores them."""

    student: Scores | None
    """None if there is no token."""
    teacher: LogitsSource | None
    """Zeros where there is no view; None: no teacher at all."""
    contrasts: Sequence[LogitsSource] = ()
    """Of the k-th contrasting view; zeros where a rollout has fewer."""


@torch.no_grad()
def gather_signals(
    objective: Objective,
    rollouts: Sequence[Rollout],
    views: Sequence[TeacherView | None],
    active: Sequence[int],
    scored: Scored,
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
        scored: Their tokens.
        device: Of the tokens.
        step: Optimizer steps taken.
        tokenizer: The student's.
        total: Sums over ranks.
    """
    tokens = token_signals([rollouts[i].ids for i in active], active, device)
    number = [len(rollouts[i].ids) for i in active]
    lengths = torch.tensor(number, dtype=torch.long, device=device)

    def spread_out(flags: Sequence[bool]) -> Tensor:
        """One flag a rollout that takes part to one a token."""
        return torch.tensor(flags, dtype=torch.bool, device=device).repeat_interleave(lengths)

    unseen = spread_out([views[i] is None for i in active])
    missing = [
        spread_out([select_contrast(views[i], k) is None for i in active])
        for k in range(len(scored.contrasts))
    ]
    optional = read_signals(objective, scored, tokens["ids"], unseen, missing)
    if objective.needs_old_logprobs:
        old = [v for i in active for v in rollouts[i].logprobs or [math.nan] * len(rollouts[i].ids)]
        optional["old_logprobs"] = torch.tensor(old, dtype=torch.float32, device=device)
    return Signals(
        **row_signals(rollouts, views),
        **tokens,
        **optional,
        step=step,
        tokenizer=tokenizer,
        total=total,
    )


def token_signals(
    completions: Sequence[Sequence[int]], active: Sequence[int], device: torch.device
) -> dict[str, Tensor]:
    """The part of the signals that stands with every token: ids, rollout and place."""
    ids = [token for completion in completions for token in completion]
    rows = [i for i, completion in zip(active, completions, strict=True) for _ in completion]
    positions = [place for completion in completions for place in range(len(completion))]
    columns = {"ids": ids, "rows": rows, "positions": positions}
    return {n: torch.tensor(c, dtype=torch.long, device=device) for n, c in columns.items()}


def read_signals(
    objective: Objective, scored: Scored, ids: Tensor, unseen: Tensor, missing: Sequence[Tensor]
) -> dict[str, Tensor]:
    """The part that the objective ``reads``, each for one product with the head or two.

    Args:
        objective: Who asks.
        scored: The tokens.
        ids: ``[N]``.
        unseen: ``[N]``, bool: zeros stood in for the teacher's scores, which make a distribution
            all the same.
        missing: For each contrasting view the same.
    """
    found: dict[str, Tensor] = {}
    reads, at = objective.reads, objective.temperature
    student, teacher = scored.student, scored.teacher
    if student is not None and reads & {"student", *DIVERGENCES}:
        found["student_logprobs"], found["student_entropy"] = token_facts(student, ids, at)
    if teacher is not None and "teacher" in reads:
        logprobs, entropy = token_facts(teacher, ids, at)
        found["teacher_logprobs"] = logprobs.masked_fill(unseen, 0.0)
        found["teacher_entropy"] = entropy.masked_fill(unseen, 0.0)
    if student is not None and teacher is not None:
        for name in reads & DIVERGENCES.keys():
            kl = whole_divergence(student, teacher, ids, at, DIVERGENCES[name])
            found[name] = kl.masked_fill(unseen, 0.0)
    if scored.contrasts and "contrasts" in reads:
        columns = [
            token_facts(scores, ids, at)[0].masked_fill(absent, torch.nan)
            for scores, absent in zip(scored.contrasts, missing, strict=True)
        ]
        found["contrast_logprobs"] = torch.stack(columns, -1)
    return found


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
