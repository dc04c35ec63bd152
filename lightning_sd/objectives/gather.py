"""Gather what an objective may read of a micro-batch before the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.objectives.base import Objective
from lightning_sd.objectives.inputs import ObjectiveInputs
from lightning_sd.objectives.scored import ScoredRollouts
from lightning_sd.scoring.statistics import compute_divergence, compute_token_statistics
from lightning_sd.types import Rollout, TeacherView, select_contrast

DIVERGENCES = {
    "forward_kl": DivergenceSpec(kind="forward_kl"),
    "reverse_kl": DivergenceSpec(kind="reverse_kl"),
}


@torch.no_grad()
def gather_inputs(
    objective: Objective, scored: ScoredRollouts, device: torch.device
) -> ObjectiveInputs:
    """Collect facts of all rollouts, the active tokens, and the statistics that are declared.

    Args:
        objective: Its ``inputs`` name the statistics.
        scored: The micro-batch.
        device: Device of the token tensors; tensors with one entry per rollout are on the CPU.
    """
    tokens = pack_tokens(scored.completions, scored.active, device)
    statistics = compute_statistics(objective, scored, tokens["ids"])
    if "behavior_logprobs" in objective.inputs.statistics:
        statistics["behavior_logprobs"] = pack_behavior_logprobs(scored, device)
    return ObjectiveInputs(
        **describe_rollouts(scored.rollouts, scored.views), **tokens, **statistics
    )


def describe_rollouts(
    rollouts: Sequence[Rollout], views: Sequence[TeacherView | None]
) -> dict[str, Tensor]:
    """Return the inputs that have one entry per rollout, on the CPU."""
    rewards = [r.verdict.reward if r.verdict else 0.0 for r in rollouts]
    flags = {
        "correct": [bool(r.verdict and r.verdict.correct) for r in rollouts],
        "finished": [r.finished for r in rollouts],
        "by_student": [r.origin == "student" for r in rollouts],
        "has_view": [view is not None for view in views],
    }
    return {
        # The dtype is named: `bf16-true` sets the default dtype to bfloat16.
        "rewards": torch.tensor(rewards, dtype=torch.float32),
        "groups": torch.tensor([r.group for r in rollouts], dtype=torch.long),
        "lengths": torch.tensor([len(r.ids) for r in rollouts], dtype=torch.long),
        **{name: torch.tensor(flag, dtype=torch.bool) for name, flag in flags.items()},
    }


def pack_tokens(
    completions: Sequence[Sequence[int]], active: Sequence[int], device: torch.device
) -> dict[str, Tensor]:
    """Return id, rollout and position of each token, packed.

    Args:
        completions: Token ids of the active rollouts.
        active: Index of each of them in the micro-batch.
        device: Device of the result.
    """
    ids = [token for completion in completions for token in completion]
    rows = [i for i, completion in zip(active, completions, strict=True) for _ in completion]
    positions = [position for completion in completions for position in range(len(completion))]
    columns = {"ids": ids, "rows": rows, "positions": positions}
    return {n: torch.tensor(c, dtype=torch.long, device=device) for n, c in columns.items()}


def pack_behavior_logprobs(scored: ScoredRollouts, device: torch.device) -> Tensor:
    """Return the log-probabilities that the sampler reported, ``[N]``; NaN where it gave none."""
    values: list[float] = []
    for i in scored.active:
        rollout = scored.rollouts[i]
        values += rollout.logprobs or [math.nan] * len(rollout.ids)
    return torch.tensor(values, dtype=torch.float32, device=device)


def compute_statistics(
    objective: Objective, scored: ScoredRollouts, ids: Tensor
) -> dict[str, Tensor]:
    """Compute the declared per-token statistics, ``[N]`` each (``contrast_logprobs``: ``[N, K]``).

    Zeros stand in for the scores of rollouts without a view, which make a distribution all the
    same; their statistics are therefore set to 0, and to NaN for contrasting views.

    Args:
        objective: Its ``inputs`` name the statistics.
        scored: The micro-batch.
        ids: ``[N]``, the active tokens.
    """
    wanted, temperature = objective.inputs.statistics, objective.temperature
    student, teacher = scored.student, scored.teacher
    no_view = _mark_missing(scored, ids.device)
    result: dict[str, Tensor] = {}
    for who, scores in (("student", student), ("teacher", teacher)):
        names = {f"{who}_logprobs", f"{who}_entropy"} & wanted
        if scores is None or not names:
            continue
        logprobs, entropy = compute_token_statistics(
            scores, ids, temperature, entropy=f"{who}_entropy" in names
        )
        result[f"{who}_logprobs"] = logprobs
        if entropy is not None:
            result[f"{who}_entropy"] = entropy
    if student is not None and teacher is not None:
        for name in wanted & DIVERGENCES.keys():
            result[name] = compute_divergence(student, teacher, ids, temperature, DIVERGENCES[name])
    for name in result.keys() - {"student_logprobs", "student_entropy"}:
        result[name] = result[name].masked_fill(no_view, 0.0)
    if scored.contrasts and objective.inputs.reads_contrasts:
        result["contrast_logprobs"] = _score_contrasts(scored, ids, temperature)
    return result


def _score_contrasts(scored: ScoredRollouts, ids: Tensor, temperature: float) -> Tensor:
    columns = []
    for k, scores in enumerate(scored.contrasts):
        logprobs, _ = compute_token_statistics(scores, ids, temperature)
        columns.append(logprobs.masked_fill(_mark_missing(scored, ids.device, k), torch.nan))
    return torch.stack(columns, -1)


def _mark_missing(scored: ScoredRollouts, device: torch.device, k: int | None = None) -> Tensor:
    """Mark tokens of rollouts without a view, or without a k-th contrasting view: ``[N]``."""
    views = [scored.views[i] for i in scored.active]
    missing = [(view if k is None else select_contrast(view, k)) is None for view in views]
    flags = torch.tensor(missing, dtype=torch.bool, device=device)
    return flags.repeat_interleave(torch.tensor(scored.lengths, dtype=torch.long, device=device))
