"""Metrics of k sampled answers per question: Avg@k, Pass@k, Maj@k, reward and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_sd.metrics.ratio import RatioMetric
from lightning_sd.types import Rollout, Verdict

Answers = Tensor | Sequence[Sequence[Any]]
"""The answers to a batch of questions, ``[questions, k]``."""


class QuestionMetric(RatioMetric):
    """Mean over questions of one number per question.

    Subclasses implement :meth:`read` and :meth:`measure`, or :meth:`measure_question` alone if
    they take no tensors.
    """

    def update(self, group: Sequence[Rollout] | Tensor, answers: Answers | None = None) -> None:
        """Add the answers to one question, or those to a batch of questions as a tensor.

        Args:
            group: All rollouts of one question, each with its verdict; or ``[questions, k]``, what
                the metric reads of each answer: whether it is correct, its reward, or its length.
            answers: With a tensor, for Maj@k only: the k answers to each question, as numbers or
                texts. None and negative numbers do not vote.

        Raises:
            ValueError: The group is empty, a rollout has no verdict, or a tensor has another shape.
        """
        if isinstance(group, Tensor):
            if group.ndim != 2 or not group.numel():
                raise ValueError(f"group: a tensor of {list(group.shape)}; give [questions, k].")
            self.total += self.measure(group.double(), answers).sum()
            self.number += len(group)
            return
        if not group or any(rollout.verdict is None for rollout in group):
            raise ValueError(
                f"group: {len(group)} rollouts, some without a verdict; give at least one rollout "
                "and judge all of them first (data module's `evidence`)."
            )
        self.total += self.measure_question(group)
        self.number += 1

    def measure_question(self, group: Sequence[Rollout]) -> float:
        """Return the number of one question.

        Args:
            group: All rollouts of the question, each with its verdict.
        """
        values = torch.tensor([[self.read(rollout) for rollout in group]], dtype=torch.float64)
        return float(self.measure(values, [[_verdict(rollout).answer for rollout in group]]))

    def read(self, rollout: Rollout) -> float:
        """Return what the metric reads of a rollout; whether it is correct, unless overridden."""
        return float(_verdict(rollout).correct)

    def measure(self, values: Tensor, answers: Answers | None) -> Tensor:
        """Return the number of each question, ``[questions]``; the mean, unless overridden.

        Args:
            values: ``[questions, k]``, float64.
            answers: The answers to each question; see :meth:`update`.
        """
        return values.mean(-1)


class AvgAtK(QuestionMetric):
    """Avg@k: share of correct answers.

    Example:
        >>> from lightning_sd import Question
        >>> question = Question("id", "1+1?", ({"role": "user", "content": "1+1?"},))
        >>> verdicts = Verdict(1.0, True, "2"), Verdict(0.0, False, "3")
        >>> metric = AvgAtK()
        >>> metric.update([Rollout(question, (5,), v.answer, 0, verdict=v) for v in verdicts])
        >>> metric.compute().item()
        0.5

        The same from a tensor, ``[questions, k]``:

        >>> metric = AvgAtK()
        >>> metric.update(torch.tensor([[True, False]]))
        >>> metric.compute().item()
        0.5
    """


class PassAtK(QuestionMetric):
    """Pass@k: share of questions with at least one correct answer among the k."""

    def measure(self, values: Tensor, answers: Answers | None) -> Tensor:
        """Return 1 for questions with a correct answer, else 0."""
        return (values > 0).any(-1).double()


class MajAtK(QuestionMetric):
    """Maj@k: share of questions with a correct most frequent answer.

    Completions without an answer do not vote. In a tie the question counts for the share of its
    winners that are correct: the expected value of a random tie-break.
    """

    def measure(self, values: Tensor, answers: Answers | None) -> Tensor:
        """Return the share of correct answers among the most frequent ones.

        Raises:
            ValueError: There are no answers, or another number of them.
        """
        votes = answers.tolist() if isinstance(answers, Tensor) else answers
        if votes is None or [len(row) for row in votes] != [values.shape[1]] * len(values):
            raise ValueError("answers: Maj@k needs the k answers to each question; give them all.")
        shares = [_share_majority(*pair) for pair in zip(values.tolist(), votes, strict=True)]
        return torch.tensor(shares, dtype=torch.float64, device=values.device)


def _share_majority(correct: Sequence[float], answers: Sequence[Any]) -> float:
    """Return the share of correct answers among the most frequent ones of a question."""
    pairs = list(zip(answers, correct, strict=True))
    pairs = [(a, c) for a, c in pairs if a is not None and not (isinstance(a, int) and a < 0)]
    votes = Counter(answer for answer, _ in pairs)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = {answer for answer, number in votes.items() if number == most}
    right = {answer for answer, is_correct in pairs if is_correct}
    return len(winners & right) / len(winners)


class MeanReward(QuestionMetric):
    """Mean reward per answer; it differs from Avg@k where rewards are partial."""

    def read(self, rollout: Rollout) -> float:
        """Return the reward."""
        return _verdict(rollout).reward


class MeanLength(QuestionMetric):
    """Mean length of an answer in tokens."""

    higher_is_better = None

    def read(self, rollout: Rollout) -> float:
        """Return the number of tokens."""
        return float(len(rollout.ids))


def build_answer_metrics(k: int, prefix: str = "") -> MetricCollection:
    """Build Avg@k, Pass@k, Maj@k, reward and length as one collection.

    Args:
        k: Answers per question; it only names the metrics.
        prefix: Put before each name, such as ``val/``.

    Example:
        >>> sorted(build_answer_metrics(4, "val/").keys())
        ['val/avg@4', 'val/length', 'val/maj@4', 'val/pass@4', 'val/reward']
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
    """Update a collection question by question.

    Args:
        metrics: A collection from :func:`build_answer_metrics`.
        rollouts: Judged; ``k`` answers to the first question, then ``k`` to the next, and so on.
        k: Answers per question.
    """
    for group in _split_questions(rollouts, k):
        for metric in metrics.values():
            metric.update(group)


def list_question_rows(rollouts: Sequence[Rollout], k: int) -> list[dict[str, Any]]:
    """List the numbers of each question, for intervals and paired comparisons.

    Args:
        rollouts: Judged; ``k`` answers to the first question, then ``k`` to the next, and so on.
        k: Answers per question.

    Returns:
        One dict per question: ``id``; ``avg``, ``pass`` and ``maj`` (0 to 1); ``reward``; and
        ``length`` in tokens.
    """
    metrics: dict[str, QuestionMetric] = {
        "avg": AvgAtK(),
        "pass": PassAtK(),
        "maj": MajAtK(),
        "reward": MeanReward(),
        "length": MeanLength(),
    }
    return [
        {"id": group[0].question.id, **{n: m.measure_question(group) for n, m in metrics.items()}}
        for group in _split_questions(rollouts, k)
    ]


def _split_questions(rollouts: Sequence[Rollout], k: int) -> Iterator[Sequence[Rollout]]:
    for start in range(0, len(rollouts), k):
        yield rollouts[start : start + k]


def _verdict(rollout: Rollout) -> Verdict:
    assert rollout.verdict is not None  # `update` has checked it
    return rollout.verdict
