"""Judge a batch with a task, check the verdicts, and report completions without an answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lightning_sd.tasks.base import Task
from lightning_sd.types import JudgeStatus, Question, Verdict

_SHOWN = 300


def judge_batch(
    task: Task, questions: Sequence[Question], completions: Sequence[str]
) -> list[Verdict]:
    """Judge the completions of a batch, and check the verdicts.

    Args:
        task: The task.
        questions: The question of each completion.
        completions: Decoded completions.

    Returns:
        One verdict per completion, in order.

    Raises:
        TypeError: The task returned something other than verdicts.
        ValueError: A reward is not finite.
    """
    verdicts = task.verify_batch(questions, completions)
    if len(verdicts) != len(completions):
        raise TypeError(
            f"{type(task).__name__}.verify_batch returned {len(verdicts)} verdicts for "
            f"{len(completions)} completions. Return one per completion."
        )
    for question, verdict in zip(questions, verdicts, strict=True):
        check_verdict(task, question, verdict)
    return verdicts


def check_judge(task: Task) -> None:
    """Judge the reference solution of one validation question, and check the verdict.

    Args:
        task: The task; without validation questions nothing is checked.

    Raises:
        TypeError: The task returned something other than a verdict.
        ValueError: The reward is not finite.
    """
    questions = task.questions("val")
    if len(questions):
        judge_batch(task, [questions[0]], [questions[0].reference or questions[0].answer or ""])


def check_verdict(task: Task, question: Question, verdict: object) -> None:
    """Check one verdict of a task.

    Raises:
        TypeError: It is not a :class:`~lightning_sd.types.Verdict`.
        ValueError: Its reward is not a finite number.
    """
    name = f"{type(task).__name__}.verify"
    if not isinstance(verdict, Verdict):
        raise TypeError(
            f"{name} returned {verdict!r} ({type(verdict).__name__}) for question "
            f"{question.id!r}. Return a Verdict, such as Verdict(reward=1.0, correct=True)."
        )
    reward: object = verdict.reward
    if not isinstance(reward, (int, float)) or not math.isfinite(reward):
        raise ValueError(
            f"{name} returned reward={reward!r} for question {question.id!r}. Return a finite "
            "number."
        )


def count_statuses(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Count the completions that were not judged, as shares.

    Args:
        verdicts: Verdicts of a batch.

    Returns:
        ``no_answer``, ``timed_out`` and ``crashed``, each from 0 to 1.

    Example:
        >>> count_statuses([Verdict(0.0, False, status="no_answer"), Verdict(1.0, True)])
        {'no_answer': 0.5, 'timed_out': 0.0, 'crashed': 0.0}
    """
    counts = Counter(verdict.status for verdict in verdicts)
    names = [name for name in get_args(JudgeStatus) if name != "judged"]
    return {name: counts[name] / max(len(verdicts), 1) for name in names}


@dataclass(frozen=True)
class AnswerReport:
    """How many completions had an answer.

    Example:
        >>> verdicts = [Verdict(1.0, True, "7"), Verdict(0.0, False, status="no_answer")]
        >>> print(report_answers(verdicts, ["<answer>7</answer>", "It is 7."]))
        1 of 2 completions had an answer (1 without). One without an answer: 'It is 7.'
    """

    completions: int
    """Number of completions."""
    answered: int
    """Completions with an answer."""
    failed: int
    """Completions on which the judge timed out or crashed."""
    example: str | None
    """The end of a completion without an answer; None if all had one."""
    reason: str | None
    """Why the judge failed on one completion; None if it never did."""

    def __str__(self) -> str:
        """Return the report in one line."""
        without = self.completions - self.answered - self.failed
        text = f"{self.answered} of {self.completions} completions had an answer"
        if without:
            text += f" ({without} without). One without an answer: {self.example!r}"
        if self.failed:
            text += f". The judge failed on {self.failed}: {self.reason}"
        return text


def report_answers(verdicts: Sequence[Verdict], completions: Sequence[str]) -> AnswerReport:
    """Report how many completions had an answer, for the start of training.

    Args:
        verdicts: Their verdicts.
        completions: Decoded completions.

    Returns:
        The report, with the last 300 characters of one completion without an answer.
    """
    pairs = list(zip(verdicts, completions, strict=True))
    without = [text for verdict, text in pairs if verdict.status == "no_answer"]
    failed = [verdict for verdict in verdicts if verdict.status in ("timed_out", "crashed")]
    return AnswerReport(
        completions=len(pairs),
        answered=len(pairs) - len(without) - len(failed),
        failed=len(failed),
        example=without[0][-_SHOWN:] if without else None,
        reason=failed[0].reason if failed else None,
    )
