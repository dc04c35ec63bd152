"""Report a training step: the means that are logged, and an object for callbacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from lightning_sd.metrics.repetition import count_repeated_runs
from lightning_sd.metrics.style import count_style_words
from lightning_sd.objectives import InputSpec, LossOutput
from lightning_sd.objectives.scored import ScoredRollouts
from lightning_sd.tasks.judges.verdicts import report_answers
from lightning_sd.types import Rollout, StepOutput

Means = dict[str, tuple[Tensor | float, float]]
"""Name to (sum, number of items)."""


class StepReport(NamedTuple):
    """What a micro-batch reports."""

    output: StepOutput
    """Rollouts, views and advantages, for callbacks."""
    means: Means
    """Sums and counts of the logged means."""
    sums: dict[str, float]
    """Logged counts: why rollouts taught nothing."""


def report_step(scored: ScoredRollouts, loss: LossOutput, spec: InputSpec) -> StepReport:
    """Summarize a micro-batch.

    The means are: ``loss``; ``silent``, the share of micro-batches without anything to learn;
    ``reward``, ``length`` (tokens) and ``cut_off`` (share) per rollout of the student; ``repeated``
    (share of runs of tokens that occurred before in the completion) and ``style_words`` (share of
    words); ``entropy``, ``advantage`` and ``advantage_abs`` per token, in nats; and, with a
    teacher, ``has_teacher`` (share of rollouts) and ``context_cut`` (tokens cut per teacher
    prompt).

    The sums are ``no_answer`` (rollouts in which the judge found no answer), ``judge_timed_out``
    and ``judge_crashed`` (rollouts for which the judge was ended), ``equal_rewards``
    (rollouts in groups with equal rewards) and, with a teacher, ``no_teacher`` (rollouts without a
    view).

    Args:
        scored: The micro-batch.
        loss: Its loss.
        spec: What the objective reads.
    """
    own = [rollout for rollout in scored.rollouts if rollout.origin == "student"]
    means: Means = {
        "loss": (loss.total, loss.count),
        "silent": (float(loss.silent), 1),
        "reward": (sum(r.verdict.reward for r in own if r.verdict), len(own)),
        "length": (sum(len(r.ids) for r in own), len(own)),
        "cut_off": (sum(not r.finished for r in own), len(own)),
        "repeated": _add_up(count_repeated_runs(r.ids) for r in own),
        "style_words": _add_up(count_style_words(r.text) for r in own),
        "entropy": (loss.tokens.entropy.sum(), len(loss.tokens.entropy)),
    }
    if spec.uses_teacher:
        views = [view for view in scored.views if view is not None]
        means["has_teacher"] = (len(views), len(scored.rollouts))
        means["context_cut"] = (sum(sum(view.cut.values()) for view in views), len(views))
    per_rollout = split_advantages(scored, loss.advantages)
    values = [value for row in per_rollout if row is not None for value in row]
    if values:
        means["advantage"] = (sum(values), len(values))
        means["advantage_abs"] = (sum(map(abs, values)), len(values))
    output = StepOutput(scored.rollouts, scored.views, per_rollout)
    return StepReport(output, means, count_causes(scored, spec))


def describe_answers(rollouts: Sequence[Rollout]) -> str:
    """Say how many of the student's completions had an answer, and show one that had none."""
    own = [r for r in rollouts if r.origin == "student" and r.verdict is not None]
    return str(report_answers([r.verdict for r in own if r.verdict], [r.text for r in own]))


def _add_up(counts: Iterable[tuple[int, int]]) -> tuple[float, float]:
    parts = list(counts)
    return float(sum(part for part, _ in parts)), float(sum(whole for _, whole in parts))


def count_causes(scored: ScoredRollouts, spec: InputSpec) -> dict[str, float]:
    """Count rollouts by what keeps them from teaching anything; see :func:`report_step`.

    Args:
        scored: The micro-batch.
        spec: What the objective reads.
    """
    judged = [r for r in scored.rollouts if r.origin == "student" and r.verdict is not None]
    rewards: dict[int, set[float]] = {}
    for rollout in judged:
        if rollout.verdict is not None:
            rewards.setdefault(rollout.group, set()).add(rollout.verdict.reward)
    statuses = [r.verdict.status for r in judged if r.verdict is not None and not r.verdict.answer]
    sums = {
        "no_answer": float(sum(status in ("no_answer", "judged") for status in statuses)),
        "judge_timed_out": float(statuses.count("timed_out")),
        "judge_crashed": float(statuses.count("crashed")),
        "equal_rewards": float(sum(len(rewards[r.group]) == 1 for r in judged)),
    }
    if spec.uses_teacher:
        sums["no_teacher"] = float(sum(view is None for view in scored.views))
    return sums


def split_advantages(
    scored: ScoredRollouts, packed: Tensor | None
) -> list[tuple[float, ...] | None]:
    """Give each rollout its part of the packed advantages; None for rollouts without a view.

    Args:
        scored: The micro-batch.
        packed: ``[tokens]`` of the active rollouts; None if no teacher scored any token.
    """
    result: list[tuple[float, ...] | None] = [None] * len(scored.rollouts)
    if packed is not None and len(packed) == sum(scored.lengths):
        for i, part in zip(scored.active, packed.split(scored.lengths), strict=True):
            if scored.views[i] is not None:  # else zeros stood in for the teacher's scores
                result[i] = tuple(part.tolist())
    return result
