"""Judge a context by the probe's estimates: worth distilling, not worth it, or unclear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_sd.metrics.intervals import Estimate

Word = Literal["worth distilling", "not worth distilling", "unclear"]
Estimates = Mapping[str, Estimate]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdict. They are conventions, not results of a study.

    Raises:
        ValueError: A share is not between 0 and 1, or ``min_questions`` is below 2.
    """

    min_teachers: float = 0.05
    """Minimum share of attempts with a teacher."""
    min_gain: float = 0.05
    """Minimum gain of the teacher on failed attempts over a second attempt of the student."""
    max_leaks: float = 0.1
    """Maximum share of answers in which the teacher refers to a context, minus the student's."""
    min_questions: int = 10
    """Minimum number of questions with a failed attempt and a teacher; with fewer the verdict is
    unclear."""

    def __post_init__(self) -> None:
        for name in ("min_teachers", "min_gain", "max_leaks"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"thresholds.{name}={getattr(self, name)}: must be from 0 to 1.")
        if self.min_questions < 2:
            raise ValueError(f"thresholds.min_questions={self.min_questions}: must be at least 2.")


@dataclass(frozen=True)
class Judgment:
    """The verdict of a probe."""

    word: Word
    why: str
    """The reason, as a clause."""
    notes: tuple[str, ...] = ()
    """Observations that do not decide."""


def judge(estimates: Estimates, thresholds: Thresholds) -> Judgment:
    """Apply the thresholds in this order.

    1. *Not worth distilling*: too few attempts have a teacher, the student fails no attempt, or no
       failed attempt has a teacher.
    2. *Unclear*: too few questions have a failed attempt with a teacher.
    3. *Not worth distilling*: the interval of the gain on failed attempts ends below ``min_gain``,
       the teacher is worse than the student over all attempts (interval below 0), or it leaks.
    4. *Unclear*: the interval of one of the two gains includes 0, or the gain on failed attempts is
       below ``min_gain``.
    5. *Worth distilling* otherwise.

    Args:
        estimates: Estimates from :func:`.estimates.estimate_means`.
        thresholds: The thresholds.
    """
    no = _explain_no_room(estimates, thresholds)
    questions = estimates["gain_failed"].questions
    word: Word
    if no is not None:
        word, why = "not worth distilling", no
    elif questions < thresholds.min_questions:
        word = "unclear"
        why = (
            f"only {questions} questions have a failed attempt with a teacher, too few for an "
            f"interval (at least {thresholds.min_questions}); probe more questions"
        )
    elif (no := _explain_no_gain(estimates, thresholds)) is not None:
        word, why = "not worth distilling", no
    elif (doubt := _explain_doubt(estimates, thresholds)) is not None:
        word, why = "unclear", doubt
    else:
        word, why = "worth distilling", _describe_gain(estimates)
    return Judgment(word, why, _list_notes(estimates))


def _explain_no_room(estimates: Estimates, thresholds: Thresholds) -> str | None:
    teachers = estimates["has_teacher"].value or 0.0
    if teachers == 0:
        return "no attempt has a teacher"
    if teachers < thresholds.min_teachers:
        return f"only {format_percent(teachers)} of the attempts have a teacher"
    if estimates["student"].value == 1:
        return "the student fails none of these questions, so nothing can be gained"
    if estimates["teacher_failed"].number == 0:
        return "no failed attempt has a teacher"
    return None


def _explain_no_gain(estimates: Estimates, thresholds: Thresholds) -> str | None:
    _, _, high = estimates["gain_failed"].ends()
    if high < thresholds.min_gain:
        least = format_points(thresholds.min_gain)
        return f"{_describe_gain(estimates)}, at best below {least} points"
    if estimates["gain"].ends()[2] < 0:
        gain = format_gain(estimates["gain"])
        return f"over all attempts the teacher is worse than the student ({gain})"
    leaks = estimates["leaks_excess"].value or 0.0
    if leaks > thresholds.max_leaks:
        return (
            f"the teacher refers to its context in {_percent(estimates, 'leaks_teacher')} of its "
            f"answers (the student in {_percent(estimates, 'leaks_student')}), which the student "
            f"would learn; {_describe_gain(estimates)}"
        )
    return None


def _explain_doubt(estimates: Estimates, thresholds: Thresholds) -> str | None:
    failed = estimates["gain_failed"]
    if failed.ends()[1] <= 0:
        return (
            f"the interval of the gain on failed attempts includes 0; {_describe_gain(estimates)}; "
            "more questions make it narrower"
        )
    if (failed.value or 0.0) < thresholds.min_gain:
        least = format_points(thresholds.min_gain)
        return f"the gain is below {least} points; {_describe_gain(estimates)}"
    if estimates["gain"].ends()[1] <= 0:
        return (
            f"{_describe_gain(estimates)}; but over all attempts the interval of the gain "
            f"includes 0 ({format_gain(estimates['gain'])})"
        )
    return None


def _describe_gain(estimates: Estimates) -> str:
    return (
        f"on failed attempts the teacher answers {_percent(estimates, 'teacher_failed')} right, "
        f"the student in a second attempt {_percent(estimates, 'again_failed')}: "
        f"a gain of {format_gain(estimates['gain_failed'])}"
    )


def _list_notes(estimates: Estimates) -> tuple[str, ...]:
    notes = []
    right, wrong = estimates["advantage_right"].value, estimates["advantage_wrong"].value
    if right is not None and wrong is not None and wrong >= right:
        notes.append(
            f"the mean advantage is no lower on wrong attempts ({wrong:+.3f}) than on correct ones "
            f"({right:+.3f}): the signal does not separate them"
        )
    likelier = estimates["positive_right"]
    if likelier.low is not None and likelier.low <= 0.5:
        # Measured on a real model (benchmarks/feedback_alignment): distilling a teacher that gives
        # correct tokens a lower probability made the student worse, although it answers better.
        notes.append(
            f"{format_percent(likelier.value)} of the correct attempts are likelier under the "
            "teacher than under the student, not reliably more than half: it may doubt correct "
            "tokens"
        )
    unrelated = estimates.get("unrelated_gain")
    if unrelated is not None and unrelated.low is not None and unrelated.low > 0:
        notes.append(
            f"the teacher gains {format_gain(unrelated)} under an unrelated context: that a "
            "context is there helps, whatever it says"
        )
    teachers = estimates["has_teacher"].value
    if teachers is not None and teachers < 1:
        notes.append(f"{format_percent(1 - teachers)} of the attempts have no teacher")
    if estimates["leaks_teacher"].value:
        notes.append(
            f"the teacher refers to its context in {_percent(estimates, 'leaks_teacher')} of its "
            f"answers, the student in {_percent(estimates, 'leaks_student')}"
        )
    if estimates["cut_off_teacher"].value:
        notes.append(
            f"{_percent(estimates, 'cut_off_teacher')} of the teacher's answers were cut off at "
            "the sampler's length limit"
        )
    return tuple(notes)


def _percent(estimates: Estimates, name: str) -> str:
    return format_percent(estimates[name].value)


def format_percent(value: float | None) -> str:
    """Format a share as percent.

    Example:
        >>> format_percent(0.9375), format_percent(0.004), format_percent(0.0), format_percent(None)
        ('94%', '0.4%', '0%', 'none')
    """
    if value is None:
        return "none"
    return f"{100 * value:.1f}%" if 0 < value < 0.01 else f"{100 * value:.0f}%"


def format_points(value: float) -> str:
    """Format a difference of shares in percentage points.

    Example:
        >>> format_points(0.05), format_points(-0.125)
        ('5', '-12')
    """
    return f"{100 * value:.0f}"


def format_gain(estimate: Estimate) -> str:
    """Format a gain with its interval."""
    value, low, high = estimate.ends()
    ends = f"{format_points(low)} to {format_points(high)}"
    return f"{format_points(value)} points (95% interval {ends})"
