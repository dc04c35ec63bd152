"""Metrics of k sampled answers per question: Avg@k, Pass@k, Maj@k, reward and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from torchmetrics import Metric, MetricCollection

from lightning_sd.metrics.ratio import RatioMetric
from lightning_sd.types import Rollout, Verdict


class QuestionMetric(RatioMetric):
    """Mean over questions of one number per question.

    Subclasses implement :meth:`measure_question`.
    """

    def update(self, group: Sequence[Rollout]) -> None:
        """Add the answers to one question.

        Args:
            group: All rollouts of the question, each with its verdict.

        Raises:
            ValueError: The group is empty, or a rollout has no verdict.
        """
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
        raise NotImplementedError


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
    """

    def measure_question(self, group: Sequence[Rollout]) -> float:
        """Return the share of correct answers to one question."""
        return sum(_verdict(rollout).correct for rollout in group) / len(group)


class PassAtK(QuestionMetric):
    """Pass@k: share of questions with at least one correct answer among the k."""

    def measure_question(self, group: Sequence[Rollout]) -> float:
        """Return 1 if any answer is correct, else 0."""
        return float(any(_verdict(rollout).correct for rollout in group))


class MajAtK(QuestionMetric):
    """Maj@k: share of questions with a correct most frequent answer.

    Completions without an answer do not vote. In a tie the question counts for the share of its
    winners that are correct: the expected value of a random tie-break.
    """

    def measure_question(self, group: Sequence[Rollout]) -> float:
        """Return the share of correct answers among the most frequent ones."""
        verdicts = [_verdict(rollout) for rollout in group]
        votes = Counter(v.answer for v in verdicts if v.answer is not None)
        if not votes:
            return 0.0
        most = max(votes.values())
        winners = {answer for answer, number in votes.items() if number == most}
        right = {v.answer for v in verdicts if v.correct and v.answer is not None}
        return len(winners & right) / len(winners)


class MeanReward(QuestionMetric):
    """Mean reward per answer; it differs from Avg@k where rewards are partial."""

    def measure_question(self, group: Sequence[Rollout]) -> float:
        """Return the mean reward of the answers to one question."""
        return sum(_verdict(rollout).reward for rollout in group) / len(group)


class MeanLength(QuestionMetric):
    """Mean length of an answer in tokens."""

    higher_is_better = None

    def measure_question(self, group: Sequence[Rollout]) -> float:
        """Return the mean number of tokens of the answers to one question."""
        return sum(len(rollout.ids) for rollout in group) / len(group)


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
