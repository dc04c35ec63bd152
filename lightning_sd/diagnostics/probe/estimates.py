"""Estimate the probe's means, with intervals over questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_sd.diagnostics.probe.attempt import Answer, Attempt
from lightning_sd.metrics.intervals import Bootstrap, Estimate, Part, Sums, sum_per_question

Count = Callable[[Attempt], Part | None]
"""Returns what one attempt adds to a mean; None if it does not take part."""


def estimate_means(attempts: Sequence[Attempt]) -> dict[str, Estimate]:
    """Estimate all means of a probe.

    The gain on failed attempts is not measured against 0, although the student failed them: in a
    new attempt it would get some of them right by chance. ``again_failed`` is the share of correct
    answers among the other attempts at the same question, which estimates such a second attempt.

    Args:
        attempts: At least two per question, in any order.

    Returns:
        Estimates by name; ``table.ROWS`` labels them. Those of the admission test are left out if
        it was not run.
    """
    questions = list_questions(attempts)
    bootstrap = Bootstrap(len(questions))

    def add_up(count: Count) -> Sums:
        return sum_per_question(((a.question, count(a)) for a in attempts), questions)

    def mean(count: Count) -> Estimate:
        return bootstrap.mean(add_up(count))

    teacher_failed = add_up(lambda a: _teacher(a, _correct) if _failed(a) else None)
    again_failed = _sum_second_attempts(attempts, questions)
    found = {
        "student": mean(lambda a: _student(a, _correct)),
        "teacher": mean(lambda a: _teacher(a, _correct)),
        "gain": bootstrap.difference(
            add_up(lambda a: _teacher(a, _correct)),
            add_up(lambda a: _student(a, _correct) if a.teacher else None),
        ),
        "teacher_failed": bootstrap.mean(teacher_failed),
        "again_failed": bootstrap.mean(again_failed),
        "gain_failed": bootstrap.difference(teacher_failed, again_failed),
        "has_teacher": mean(lambda a: (a.teacher is not None, 1)),
        "leaks_teacher": mean(lambda a: _teacher(a, _leaks)),
        "leaks_student": mean(lambda a: _student(a, _leaks)),
        "leaks_excess": bootstrap.difference(
            add_up(lambda a: _teacher(a, _leaks)), add_up(lambda a: _student(a, _leaks))
        ),
        "copied_teacher": mean(lambda a: a.teacher.copied if a.teacher else None),
        "copied_student": mean(lambda a: a.student.copied if a.teacher else None),
        "cut_off_teacher": mean(lambda a: _teacher(a, _cut_off)),
        "cut_off_student": mean(lambda a: _student(a, _cut_off)),
        "advantage_right": mean(lambda a: None if _failed(a) else _advantage(a)),
        "advantage_wrong": mean(lambda a: _advantage(a) if _failed(a) else None),
        "positive_right": mean(lambda a: None if _failed(a) else _positive(a)),
        "positive_wrong": mean(lambda a: _positive(a) if _failed(a) else None),
        "negative_from_error": mean(lambda a: _position(a, "negative_mass")),
        "tokens_from_error": mean(lambda a: _position(a, "mass_chance")),
    }
    if all(a.unrelated is None and a.continued is None for a in attempts):
        return found
    return found | _estimate_admission(add_up, bootstrap)


def _estimate_admission(
    add_up: Callable[[Count], Sums], bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """Estimate the means of the admission test."""
    unrelated = add_up(lambda a: None if a.unrelated is None else (a.unrelated, 1))
    student = add_up(lambda a: None if a.unrelated is None else _student(a, _correct))
    continued = add_up(lambda a: None if a.continued is None else (a.continued, 1))
    alone = add_up(lambda a: None if a.continued_alone is None else (a.continued_alone, 1))
    return {
        "unrelated": bootstrap.mean(unrelated),
        "unrelated_gain": bootstrap.difference(unrelated, student),
        "continued": bootstrap.mean(continued),
        "continued_alone": bootstrap.mean(alone),
        "continued_gain": bootstrap.difference(continued, alone),
    }


def list_questions(attempts: Sequence[Attempt]) -> list[str]:
    """List the ids of the questions, in the order of their first attempts."""
    return list(dict.fromkeys(attempt.question for attempt in attempts))


def _sum_second_attempts(attempts: Sequence[Attempt], questions: Sequence[str]) -> Sums:
    """For each failed attempt with a teacher, add the share of its siblings that are correct."""
    right = sum_per_question(((a.question, (a.student.correct, 1)) for a in attempts), questions)
    failed = sum_per_question(
        ((a.question, (1, 1)) for a in attempts if _failed(a) and a.teacher is not None), questions
    )
    totals = [
        number * correct / (size - 1)
        for number, correct, size in zip(failed.counts, right.totals, right.counts, strict=True)
    ]
    return Sums(totals, failed.counts)


def _failed(attempt: Attempt) -> bool:
    return not attempt.student.correct


def _correct(answer: Answer) -> bool:
    return answer.correct


def _leaks(answer: Answer) -> bool:
    return bool(answer.leaks)


def _cut_off(answer: Answer) -> bool:
    return not answer.finished


def _student(attempt: Attempt, holds: Callable[[Answer], bool]) -> Part:
    return (holds(attempt.student), 1)


def _teacher(attempt: Attempt, holds: Callable[[Answer], bool]) -> Part | None:
    return (holds(attempt.teacher), 1) if attempt.teacher else None


def _advantage(attempt: Attempt) -> Part | None:
    """Add its tokens' advantages: long attempts weigh more, as in training."""
    return (sum(attempt.advantages), len(attempt.advantages)) if attempt.advantages else None


def _positive(attempt: Attempt) -> Part | None:
    """Count whether the teacher gives the whole attempt a higher probability."""
    return (sum(attempt.advantages) > 0, 1) if attempt.advantages else None


def _position(attempt: Attempt, name: str) -> Part | None:
    """Count a share at or after the first wrong step, where the rollout defines one."""
    position = attempt.localization
    if position is None or position.negative_mass is None:
        return None
    return (getattr(position, name), 1)
