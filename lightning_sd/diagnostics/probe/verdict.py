"""From estimates to a word: worth distilling, not worth it, or unclear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lightning_sd.metrics.intervals import Estimate

Word = Literal["worth distilling", "not worth distilling", "unclear"]
Estimates = Mapping[str, Estimate]


@dataclass(frozen=True)
class Thresholds:
    """Where the verdict turns; all are shares between 0 and 1, but for the number of questions.

    They are conventions of ours, not results: a context that passes can still train badly.

    Raises:
        ValueError: One out of range.
    """

    min_teachers: float = 0.05
    """Share of attempts that must have a teacher."""
    min_gain: float = 0.05
    """What the teacher must gain on failed attempts over a second try of the student."""
    max_leaks: float = 0.1
    """By how much the teacher may speak of a context more often than the student does."""
    min_questions: int = 10
    """Questions with a failed attempt and a teacher, below which no interval is trusted."""

    def __post_init__(self) -> None:
        for name in ("min_teachers", "min_gain", "max_leaks"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"thresholds.{name}={getattr(self, name)}: must be from 0 to 1.")
        if self.min_questions < 2:
            raise ValueError(f"thresholds.min_questions={self.min_questions}: must be at least 2.")


@dataclass(frozen=True)
class Judgement:
    """The verdict in one word and in a sentence."""

    word: Word
    why: str
    notes: tuple[str, ...] = ()
    """What does not decide, but should be known."""


def judge(found: Estimates, thresholds: Thresholds) -> Judgement:
    """Apply the thresholds, in this order.

    1. *Not worth*: too few attempts have a teacher, or the student fails none, or none that it
       fails has a teacher.
    2. *Unclear*: too few questions have a failed attempt with a teacher.
    3. *Not worth*: the interval of the gain on failed attempts ends below ``min_gain``; or the
       teacher is worse than the student over all attempts (interval below 0); or it leaks.
    4. *Unclear*: one of the two gains' intervals includes 0, or the gain on failed attempts is
       below ``min_gain``.
    5. *Worth* it otherwise.

    Args:
        found: As :func:`lightning_sd.diagnostics.probe.report.estimates` gives them.
        thresholds: Where it turns.
    """
    no = _nothing_to_gain(found, thresholds)
    questions = found["gain_failed"].questions
    word: Word
    if no is not None:
        word, why = "not worth distilling", no
    elif questions < thresholds.min_questions:
        word = "unclear"
        why = (
            f"only {questions} questions have a failed attempt with a teacher, too few for an "
            f"interval (at least {thresholds.min_questions}); probe more questions"
        )
    elif (no := _no_gain(found, thresholds)) is not None:
        word, why = "not worth distilling", no
    elif (doubt := _doubt(found, thresholds)) is not None:
        word, why = "unclear", doubt
    else:
        word, why = "worth distilling", _gain_in_words(found)
    return Judgement(word, why, _notes(found))


def _nothing_to_gain(found: Estimates, thresholds: Thresholds) -> str | None:
    teachers = found["has_teacher"].value or 0.0
    if teachers == 0:
        return "no attempt has a teacher"
    if teachers < thresholds.min_teachers:
        return f"only {percent(teachers)} of the attempts have a teacher"
    if found["student"].value == 1:
        return "the student fails none of these questions, so nothing can be gained"
    if found["teacher_failed"].number == 0:
        return "no failed attempt has a teacher"
    return None


def _no_gain(found: Estimates, thresholds: Thresholds) -> str | None:
    _, high = _ends(found["gain_failed"])
    if high < thresholds.min_gain:
        return f"{_gain_in_words(found)}, at best below {points(thresholds.min_gain)} points"
    if _ends(found["gain"])[1] < 0:
        return f"over all attempts the teacher is worse than the student ({span(found['gain'])})"
    leaks = found["leaks_excess"].value or 0.0
    if leaks > thresholds.max_leaks:
        return (
            f"the teacher speaks of its context in {percent(found['leaks_teacher'].value)} of its "
            f"answers (the student in {percent(found['leaks_student'].value)}), which the student "
            f"would learn; {_gain_in_words(found)}"
        )
    return None


def _doubt(found: Estimates, thresholds: Thresholds) -> str | None:
    failed = found["gain_failed"]
    if _ends(failed)[0] <= 0:
        return (
            f"the interval of the gain on failed attempts includes 0; {_gain_in_words(found)}; "
            "more questions make it narrower"
        )
    if (failed.value or 0.0) < thresholds.min_gain:
        return f"the gain is below {points(thresholds.min_gain)} points; {_gain_in_words(found)}"
    if _ends(found["gain"])[0] <= 0:
        return (
            f"{_gain_in_words(found)}; but over all attempts the interval of the gain includes 0 "
            f"({span(found['gain'])})"
        )
    return None


def _gain_in_words(found: Estimates) -> str:
    return (
        f"on failed attempts the teacher answers {percent(found['teacher_failed'].value)} right, "
        f"the student at a second try {percent(found['again_failed'].value)}: "
        f"a gain of {span(found['gain_failed'])}"
    )


def _notes(found: Estimates) -> tuple[str, ...]:
    notes = []
    right, wrong = found["advantage_right"].value, found["advantage_wrong"].value
    if right is not None and wrong is not None and wrong >= right:
        notes.append(
            f"the mean advantage is no lower on wrong attempts ({wrong:+.3f}) than on right ones "
            f"({right:+.3f}): the signal does not tell them apart"
        )
    likelier = found["positive_right"]
    if likelier.low is not None and likelier.low <= 0.5:
        # Seen on a real model (benchmarks/feedback_alignment): teachers that answer better, and are
        # less sure than the student of tokens that it has right, made it worse.
        notes.append(
            f"{percent(likelier.value)} of the right attempts are likelier under the teacher than "
            "under the student, not surely more than half: it may doubt what is right"
        )
    teachers = found["has_teacher"].value
    if teachers is not None and teachers < 1:
        notes.append(f"{percent(1 - teachers)} of the attempts have no teacher")
    if found["leaks_teacher"].value:
        notes.append(
            f"the teacher speaks of its context in {percent(found['leaks_teacher'].value)} of its "
            f"answers, the student in {percent(found['leaks_student'].value)}"
        )
    if found["cut_off_teacher"].value:
        notes.append(
            f"{percent(found['cut_off_teacher'].value)} of the teacher's answers were cut off at "
            "the sampler's length limit"
        )
    return tuple(notes)


def _ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def percent(value: float | None) -> str:
    """A share in words.

    Example:
        >>> percent(0.9375), percent(0.004), percent(0.0), percent(None)
        ('94%', '0.4%', '0%', 'none')
    """
    if value is None:
        return "none"
    return f"{100 * value:.1f}%" if 0 < value < 0.01 else f"{100 * value:.0f}%"


def points(value: float) -> str:
    """A difference of shares in percentage points.

    Example:
        >>> points(0.05), points(-0.125)
        ('5', '-12')
    """
    return f"{100 * value:.0f}"


def span(estimate: Estimate) -> str:
    """A gain with its interval."""
    low, high = _ends(estimate)
    return f"{points(estimate.value or 0.0)} points (95% interval {points(low)} to {points(high)})"
