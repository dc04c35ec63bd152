"""How good k sampled answers a question are: Avg@k, Pass@k, Maj@k, reward, and their length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_sd.types import Rollout, Verdict


class _OverQuestions(Metric):
    """Mean of a number a question."""

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False
    total: Tensor
    number: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, group: Sequence[Rollout]) -> None:
        """Take in the answers to one question.

        Args:
            group: Its rollouts, verdicts filled in.

        Raises:
            ValueError: No rollout, or one without a verdict.
        """
        if not group or any(rollout.verdict is None for rollout in group):
            raise ValueError("A group needs at least one rollout, and each of them its verdict.")
        self.total += self.of_question(group)
        self.number += 1

    def compute(self) -> Tensor:
        """The mean over questions, a float64 scalar; nan before any update."""
        return self.total / self.number

    def of_question(self, group: Sequence[Rollout]) -> float:
        """The number for one question."""
        raise NotImplementedError


class AvgAtK(_OverQuestions):
    """Share of right answers."""

    def of_question(self, group: Sequence[Rollout]) -> float:
        """Right answers over answers."""
        return sum(_verdict(rollout).correct for rollout in group) / len(group)


class PassAtK(_OverQuestions):
    """Share of questions with at least one right answer among the k."""

    def of_question(self, group: Sequence[Rollout]) -> float:
        """1 if any answer is right."""
        return float(any(_verdict(rollout).correct for rollout in group))


class MajAtK(_OverQuestions):
    """Share of questions whose most frequent answer is right.

    Completions without an answer do not vote. On a tie each winner counts for its share, which is
    what breaking ties at random gives on average.
    """

    def of_question(self, group: Sequence[Rollout]) -> float:
        """The right winners' share among the winners."""
        verdicts = [_verdict(rollout) for rollout in group]
        votes = Counter(v.answer for v in verdicts if v.answer is not None)
        if not votes:
            return 0.0
        most = max(votes.values())
        winners = {answer for answer, number in votes.items() if number == most}
        right = {v.answer for v in verdicts if v.correct and v.answer is not None}
        return len(winners & right) / len(winners)


class MeanReward(_OverQuestions):
    """Mean reward: what Avg@k is not where answers can be partly right."""

    def of_question(self, group: Sequence[Rollout]) -> float:
        """Reward an answer."""
        return sum(_verdict(rollout).reward for rollout in group) / len(group)


class MeanLength(_OverQuestions):
    """Mean length of the answers in tokens."""

    higher_is_better = None

    def of_question(self, group: Sequence[Rollout]) -> float:
        """Tokens an answer."""
        return sum(len(rollout.ids) for rollout in group) / len(group)


def answer_metrics(k: int, prefix: str = "") -> MetricCollection:
    """Avg@k, Pass@k, Maj@k, reward and length as one collection.

    Args:
        k: Answers a question; only names the metrics.
        prefix: Put before each name, such as ``val/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {
        f"avg@{k}": AvgAtK(),
        f"pass@{k}": PassAtK(),
        f"maj@{k}": MajAtK(),
        "reward": MeanReward(),
        "length": MeanLength(),
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def update_answers(metrics: MetricCollection, rollouts: Sequence[Rollout], k: int) -> None:
    """Feed judged answers to a collection, question by question.

    Args:
        metrics: As :func:`answer_metrics` makes it.
        rollouts: ``k`` answers to one question, then to the next, and so on.
        k: Answers a question.
    """
    for start in range(0, len(rollouts), k):
        for metric in metrics.values():
            metric.update(rollouts[start : start + k])


def question_rows(rollouts: Sequence[Rollout], k: int) -> list[dict[str, Any]]:
    """What the metrics average, question by question: for intervals and paired comparisons.

    Args:
        rollouts: ``k`` judged answers to one question, then to the next, and so on.
        k: Answers a question.

    Returns:
        One dict a question: ``id``, ``avg``, ``pass``, ``maj`` (0 to 1), ``reward`` and ``length``
        in tokens.
    """
    metrics = {
        "avg": AvgAtK(),
        "pass": PassAtK(),
        "maj": MajAtK(),
        "reward": MeanReward(),
        "length": MeanLength(),
    }
    groups = [rollouts[start : start + k] for start in range(0, len(rollouts), k)]
    return [
        {"id": group[0].question.id, **{n: m.of_question(group) for n, m in metrics.items()}}
        for group in groups
    ]


def _verdict(rollout: Rollout) -> Verdict:
    assert rollout.verdict is not None
    return rollout.verdict
