"""From attempts to the probe's numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightning_sd.diagnostics.probe.collect import Costs
from lightning_sd.diagnostics.probe.records import Answer, Attempt
from lightning_sd.diagnostics.probe.verdict import Judgement, Thresholds, judge
from lightning_sd.metrics.intervals import Bootstrap, Estimate, Sums

Part = tuple[float, float]
"""What one attempt adds to a mean: total and count."""
NOTHING: Part = (0.0, 0.0)


@dataclass(frozen=True)
class ProbeReport:
    """What ``probe`` found; every field is plain data."""

    context: str
    teacher: str
    """Whose weights."""
    questions: int
    samples: int
    """Attempts a question."""
    estimates: Mapping[str, Estimate]
    missing: Mapping[str, int]
    """Attempts without a teacher, by reason."""
    phrases: Mapping[str, int]
    """The teacher's answers that hold each phrase."""
    costs: Costs
    thresholds: Thresholds
    verdict: Judgement


def summarise(
    attempts: Sequence[Attempt],
    *,
    context: str,
    teacher: str,
    costs: Costs,
    thresholds: Thresholds,
) -> ProbeReport:
    """Put the numbers and the verdict together.

    Args:
        attempts: The same number a question.
        context: Name of the context.
        teacher: Name of the teacher's weights.
        costs: Of it all.
        thresholds: Of the verdict.
    """
    groups = grouped(attempts)
    found = estimates(groups)
    answers = [attempt.teacher for attempt in attempts if attempt.teacher]
    missing = Counter(attempt.missing for attempt in attempts if attempt.missing)
    phrases = Counter(phrase for answer in answers for phrase in answer.leaks)
    return ProbeReport(
        context=context,
        teacher=teacher,
        questions=len(groups),
        samples=len(attempts) // len(groups),
        estimates=found,
        missing=dict(missing.most_common()),
        phrases=dict(phrases.most_common()),
        costs=costs,
        thresholds=thresholds,
        verdict=judge(found, thresholds),
    )


def grouped(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """The attempts of each question together."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.question, []).append(attempt)
    return list(groups.values())


def estimates(groups: Sequence[Sequence[Attempt]]) -> dict[str, Estimate]:
    """All means, with intervals.

    The gain on failed attempts is not measured against 0, although the student failed them: asked
    again, it would get some right by chance. ``again_failed`` is how often the other attempts at
    the same question are right, which is what a fresh try would give.

    Args:
        groups: The attempts of each question, at least two each.
    """
    bootstrap = Bootstrap(len(groups))

    def mean(part: Callable[[Attempt], Part]) -> Estimate:
        return bootstrap.mean(sums(groups, part))

    teacher_failed = sums(groups, lambda a: of_teacher(a, correct) if failed(a) else NOTHING)
    again_failed = again(groups)
    return {
        "student": mean(lambda a: of_student(a, correct)),
        "teacher": mean(lambda a: of_teacher(a, correct)),
        "gain": bootstrap.difference(
            sums(groups, lambda a: of_teacher(a, correct)),
            sums(groups, lambda a: of_student(a, correct) if a.teacher else NOTHING),
        ),
        "teacher_failed": bootstrap.mean(teacher_failed),
        "again_failed": bootstrap.mean(again_failed),
        "gain_failed": bootstrap.difference(teacher_failed, again_failed),
        "has_teacher": mean(lambda a: (a.teacher is not None, 1)),
        "leaks_teacher": mean(lambda a: of_teacher(a, leaking)),
        "leaks_student": mean(lambda a: of_student(a, leaking)),
        "leaks_excess": bootstrap.difference(
            sums(groups, lambda a: of_teacher(a, leaking)),
            sums(groups, lambda a: of_student(a, leaking)),
        ),
        "copied_teacher": mean(lambda a: a.teacher.copied if a.teacher else NOTHING),
        "copied_student": mean(lambda a: a.student.copied if a.teacher else NOTHING),
        "cut_off_teacher": mean(lambda a: of_teacher(a, cut_off)),
        "cut_off_student": mean(lambda a: of_student(a, cut_off)),
        "advantage_right": mean(lambda a: NOTHING if failed(a) else advantage(a)),
        "advantage_wrong": mean(lambda a: advantage(a) if failed(a) else NOTHING),
        "positive_right": mean(lambda a: NOTHING if failed(a) else positive(a)),
        "positive_wrong": mean(lambda a: positive(a) if failed(a) else NOTHING),
        "negative_from_error": mean(lambda a: from_error(a)[0]),
        "tokens_from_error": mean(lambda a: from_error(a)[1]),
    }


def sums(groups: Sequence[Sequence[Attempt]], part: Callable[[Attempt], Part]) -> Sums:
    """Add up what the attempts of each question give."""
    parts = [[part(attempt) for attempt in group] for group in groups]
    return Sums(
        totals=[float(sum(total for total, _ in group)) for group in parts],
        counts=[float(sum(count for _, count in group)) for group in parts],
    )


def again(groups: Sequence[Sequence[Attempt]]) -> Sums:
    """For each failed attempt with a teacher: the share of its siblings that are right."""
    totals, counts = [], []
    for group in groups:
        right = sum(attempt.student.correct for attempt in group)
        number = sum(failed(a) and a.teacher is not None for a in group)
        totals.append(number * right / (len(group) - 1))
        counts.append(float(number))
    return Sums(totals, counts)


def failed(attempt: Attempt) -> bool:
    """Whether the student got it wrong."""
    return not attempt.student.correct


def correct(answer: Answer) -> bool:
    """Whether it is right."""
    return answer.correct


def leaking(answer: Answer) -> bool:
    """Whether it speaks of a context."""
    return bool(answer.leaks)


def cut_off(answer: Answer) -> bool:
    """Whether it met the length limit."""
    return not answer.finished


def of_student(attempt: Attempt, holds: Callable[[Answer], bool]) -> Part:
    """Count the student's attempt."""
    return (holds(attempt.student), 1)


def of_teacher(attempt: Attempt, holds: Callable[[Answer], bool]) -> Part:
    """Count the teacher's answer, if there is one."""
    return (holds(attempt.teacher), 1) if attempt.teacher else NOTHING


def advantage(attempt: Attempt) -> Part:
    """Its tokens' advantages: a mean over tokens weighs long attempts more, as training does."""
    return (sum(attempt.advantages), len(attempt.advantages)) if attempt.advantages else NOTHING


def positive(attempt: Attempt) -> Part:
    """Whether the attempt as a whole is likelier under the teacher."""
    return (sum(attempt.advantages) > 0, 1) if attempt.advantages else NOTHING


def from_error(attempt: Attempt) -> tuple[Part, Part]:
    """Negative advantage at or after the first wrong step, and the tokens there, as shares."""
    found = attempt.localisation
    if found is None or found.negative_mass is None:
        return NOTHING, NOTHING
    return (found.negative_mass, 1), (found.mass_chance, 1)
