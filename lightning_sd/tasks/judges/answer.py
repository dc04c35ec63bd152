"""Judge completions by their final answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from lightning_sd.tasks.judges.compare import canonicalize_answer, normalize_answer
from lightning_sd.tasks.judges.extract import (
    DEFAULT_FORMATS,
    check_formats,
    extract_answer,
    is_named,
    restore_thinking,
)
from lightning_sd.tasks.judges.formulas import (
    are_equal_formulas,
    is_expensive,
    require_math_verify,
)
from lightning_sd.tasks.judges.process import JudgeLimits, JudgeProcess, Outcome
from lightning_sd.types import Question, Verdict

AnswerMethod = Literal["number", "exact", "math"]

ACCEPTED_ANSWERS = "accepted_answers"
"""Key of ``Question.extra`` for all accepted answers, if there are several."""


class AnswerJudge:
    r"""Compares the final answer of a completion with the right one.

    The reward is 1 for a right answer and 0 for all others. ``number`` and ``exact`` with named
    formats run in the training process and take microseconds. ``math`` and regular expressions of
    your own run in a worker process with a deadline.

    Args:
        method: ``number`` compares normalized texts, and numbers by value: 18, 18.0, $18 and 18.00
            are equal, 1,800 and 1800 too. ``exact`` compares normalized texts only. ``math`` also
            compares formulas with math-verify: 1/2 and 0.5 are equal.
        completion_pattern: Format of the answer in a completion, or several in order of preference.
            See :func:`~lightning_sd.tasks.judges.extract_answer`.
        limits: Limits of the worker process. None uses those of the task.

    Raises:
        ImportError: ``math`` without math-verify.
        ValueError: The method or a format is unknown.

    Example:
        >>> judge = AnswerJudge()
        >>> judge.judge_answers(["1800"], ["It costs <answer>$1,800.00</answer>"])[0].correct
        True
        >>> judge.judge_answers(["7"], ["<think>7, so \\boxed{7}"])[0].status
        'no_answer'
    """

    def __init__(
        self,
        method: AnswerMethod = "number",
        completion_pattern: str | Sequence[str] = DEFAULT_FORMATS,
        limits: JudgeLimits | None = None,
    ) -> None:
        if method not in get_args(AnswerMethod):
            raise ValueError(f"judge={method!r}: choose one of {get_args(AnswerMethod)}.")
        if method == "math":
            require_math_verify()
        self.method = method
        self.formats = check_formats(completion_pattern, "completion_pattern")
        self.completion_pattern, self.limits = completion_pattern, limits
        self._process = JudgeProcess(compare_answer, limits)

    def __call__(self, question: Question, completion: str) -> Verdict:
        """Judge one completion."""
        return self.judge([question], [completion])[0]

    def use_limits(self, limits: JudgeLimits) -> None:
        """Set the limits, unless the judge was made with its own."""
        self._process.limits = self.limits or limits

    def judge(self, questions: Sequence[Question], completions: Sequence[str]) -> list[Verdict]:
        """Judge completions by any accepted answer of their question. See :class:`Judge`."""
        golds = [q.extra.get(ACCEPTED_ANSWERS, (q.answer,)) for q in questions]
        completions = list(map(restore_thinking, questions, completions))
        verdicts = self.judge_answers([accepted[0] for accepted in golds], completions)
        for number in range(1, max(map(len, golds), default=0)):
            wrong = [
                i
                for i, verdict in enumerate(verdicts)
                if not verdict.correct and verdict.status == "judged" and number < len(golds[i])
            ]
            others = self.judge_answers(
                [golds[i][number] for i in wrong], [completions[i] for i in wrong]
            )
            for i, verdict in zip(wrong, others, strict=True):
                if verdict.correct:  # all accepted answers count as one in a majority vote
                    verdicts[i] = self._build(golds[i][0], "", True)
        return verdicts

    def judge_answers(
        self, golds: Sequence[str | None], completions: Sequence[str]
    ) -> list[Verdict]:
        """Judge completions by their right answers.

        Args:
            golds: The right answer per completion. None counts every completion as wrong.
            completions: Decoded completions.

        Returns:
            One verdict per completion. ``answer`` is the normalized answer of the completion, and
            that of ``golds`` if it is right, so that a majority vote counts all spellings together.
        """
        pairs = list(zip(golds, completions, strict=True))
        verdicts = [self._judge_here(gold, text) for gold, text in pairs]
        undecided = [i for i, verdict in enumerate(verdicts) if verdict is None]
        calls = [(*pairs[i], self.method, self.formats) for i in undecided]
        for i, outcome in zip(undecided, self._process.run(calls), strict=True):
            verdicts[i] = self._read_outcome(pairs[i][0], outcome)
        return [verdict for verdict in verdicts if verdict is not None]

    def close(self) -> None:
        """End the worker process."""
        self._process.close()

    def _judge_here(self, gold: str | None, text: str) -> Verdict | None:
        """Judge without the worker process, or return None if that does not decide."""
        if not is_named(self.formats):
            return None
        answer = extract_answer(text, self.formats)
        if answer is None:
            return Verdict(reward=0.0, correct=False, status="no_answer")
        correct = gold is not None and are_equal(gold, answer, self.method)
        if self.method == "math" and gold is not None and not correct:
            expensive = is_expensive(answer) or is_expensive(gold)
            return self._build(gold, answer, correct) if expensive else None
        return self._build(gold, answer, correct)

    def _read_outcome(self, gold: str | None, outcome: Outcome) -> Verdict:
        if outcome.status != "judged":
            return Verdict(0.0, False, status=outcome.status, reason=outcome.reason)
        answer, correct = outcome.value
        if answer is None:
            return Verdict(reward=0.0, correct=False, status="no_answer")
        return self._build(gold, answer, correct)

    def _build(self, gold: str | None, answer: str, correct: bool) -> Verdict:
        write = normalize_answer if self.method == "exact" else canonicalize_answer
        reported = write(gold) if correct and gold is not None else write(answer)
        return Verdict(reward=float(correct), correct=correct, answer=reported)


def are_equal(gold: str, answer: str, method: AnswerMethod = "number") -> bool:
    """Tell whether two answers are equal, without formulas.

    Args:
        gold: The right answer.
        answer: The answer of a completion.
        method: ``exact`` compares normalized texts, the others numbers by value as well.

    Returns:
        Whether they are equal.

    Example:
        >>> are_equal("18", "18.0"), are_equal("18", "18.0", "exact"), are_equal("(B)", "B")
        (True, False, True)
    """
    if normalize_answer(gold) == normalize_answer(answer):
        return True
    if method == "exact":
        return False
    if canonicalize_answer(gold) == canonicalize_answer(answer):
        return True
    letter = normalize_answer(gold).strip("()[]. ")
    return len(letter) == 1 and letter == normalize_answer(answer).strip("()[]. ")


def compare_answer(
    gold: str | None, completion: str, method: AnswerMethod, formats: Sequence[str]
) -> list[Any]:
    """Read and compare the answer of one completion. It runs in the worker process.

    Returns:
        The answer or None, and whether it is right.
    """
    answer = extract_answer(completion, formats)
    if answer is None or gold is None:
        return [answer, False]
    correct = are_equal(gold, answer, method)
    if method == "math" and not correct and not (is_expensive(answer) or is_expensive(gold)):
        correct = are_equal_formulas(normalize_answer(gold), normalize_answer(answer))
    return [answer, correct]
