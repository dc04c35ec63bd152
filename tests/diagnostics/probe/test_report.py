"""Numbers and verdicts over attempts made by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from lightning_sd.diagnostics.probe import Thresholds
from lightning_sd.diagnostics.probe.attempt import Answer, Attempt
from lightning_sd.diagnostics.probe.estimates import estimate_means
from lightning_sd.diagnostics.probe.report import Costs, summarize_attempts
from lightning_sd.diagnostics.probe.table import list_lines
from lightning_sd.metrics.localization import localize

RIGHT = Answer(correct=True, finished=True, tokens=3)
WRONG = Answer(correct=False, finished=True, tokens=3)


def attempts(questions, students, teachers, name="q"):
    """The same pattern of attempts at each question; letters: r right, w wrong, - no teacher."""
    answers = {"r": RIGHT, "w": WRONG, "-": None}
    return [
        Attempt(f"{name}{q}", answers[s], answers[t], None if answers[t] else "nothing to show")
        for q in range(questions)
        for s, t in zip(students, teachers, strict=True)
    ]


def report(rows, **thresholds):
    return summarize_attempts(
        rows,
        context="Hint",
        teacher="LiveTeacher",
        costs=Costs(),
        thresholds=Thresholds(**thresholds),
    )


def test_the_second_try_is_what_the_other_attempts_give():
    rows = attempts(1, "rrww", "rrrw") + attempts(1, "wwwr", "w-rr", name="other")
    found = estimate_means(rows)
    others = []
    for row in (rows[:4], rows[4:]):
        for i in range(4):
            if not row[i].student.correct and row[i].teacher:
                rest = [a.student.correct for j, a in enumerate(row) if j != i]
                others.append(sum(rest) / len(rest))
    assert found["again_failed"].value == pytest.approx(sum(others) / len(others))
    assert found["teacher_failed"].value == pytest.approx(2 / 4)
    assert found["gain_failed"].value == pytest.approx(2 / 4 - sum(others) / len(others))
    assert found["student"].value == pytest.approx(3 / 8)
    # Over attempts with a teacher both: 5 of 7 against 3 of 7.
    assert found["gain"].value == pytest.approx(2 / 7)


@pytest.mark.parametrize(
    ("rows", "word", "says"),
    [
        (attempts(20, "rwww", "rrrr"), "worth distilling", "gain of 67 points"),
        (attempts(20, "rwww", "rwww"), "not worth distilling", "at best below 5 points"),
        (attempts(20, "rrww", "wwww"), "not worth distilling", "at best below"),
        (attempts(20, "rrrr", "rrrr"), "not worth distilling", "fails none"),
        (attempts(20, "rwww", "----"), "not worth distilling", "no attempt has a teacher"),
        (attempts(20, "rwww", "r---"), "not worth distilling", "no failed attempt has a teacher"),
        (
            attempts(40, "wwww", "----") + attempts(1, "wr", "rr", name="other"),
            "not worth distilling",
            "only 1% of the attempts",
        ),
        (attempts(9, "rwww", "rrrr"), "unclear", "only 9 questions"),
        # Right on failed attempts, wrong on those that were right: worse in total.
        (
            attempts(60, "rrrrrrrrww", "rwwwwwwwrr"),
            "not worth distilling",
            "over all attempts the teacher is worse",
        ),
    ],
)  # fmt: skip
def test_the_verdict(rows, word, says):
    verdict = report(rows).verdict
    assert verdict.word == word
    assert says in verdict.why


def test_an_interval_with_zero_in_it_is_unclear():
    rows = [
        *attempts(4, "rrww", "rrrr", name="a"),
        *attempts(4, "rrww", "rrwr", name="b"),
        *attempts(4, "rrww", "rrww", name="c"),
    ]
    found = report(rows)
    gain = found.estimates["gain_failed"]
    assert gain.low <= 0 < gain.high
    assert found.verdict.word == "unclear"
    assert "includes 0" in found.verdict.why
    # What is asked for decides: if only a large gain is worth it, the same is no longer unclear.
    assert report(rows, min_gain=0.9).verdict.word == "not worth distilling"


def test_leaks_beyond_the_students_own_make_it_not_worth():
    leaky = replace(RIGHT, leaks=("critique", "rubric"))
    rows = [replace(row, teacher=leaky) for row in attempts(20, "rwww", "rrrr")]
    found = report(rows)
    assert found.phrases == {"critique": 80, "rubric": 80}
    assert found.estimates["leaks_teacher"].value == 1
    assert found.verdict.word == "not worth distilling"
    assert "refers to its context in 100% of its answers" in found.verdict.why
    assert report(rows, max_leaks=1.0).verdict.word == "worth distilling"
    # The student says the same words anyway: they do not come from the context.
    own = [replace(row, student=replace(row.student, leaks=("critique",))) for row in rows]
    assert report(own).verdict.word == "worth distilling"


def test_advantages_are_told_apart_by_verdict():
    values = {True: (0.5, 0.1), False: (-1.0, 0.5, -0.1)}
    rows = [
        replace(row, advantages=values[row.student.correct]) for row in attempts(20, "rwww", "rrrr")
    ]
    found = report(rows).estimates
    assert found["advantage_right"].value == pytest.approx(0.3)
    assert found["advantage_wrong"].value == pytest.approx(-0.2)
    assert (found["positive_right"].value, found["positive_wrong"].value) == (1, 0)
    assert not report(rows).verdict.notes
    turned = [replace(row, advantages=tuple(-a for a in row.advantages)) for row in rows]
    notes = report(turned).verdict.notes
    assert "does not separate them" in notes[0]
    assert notes[1].startswith("0% of the correct attempts are likelier")
    mixed = [
        replace(row, advantages=tuple(a if i % 8 else -a for a in row.advantages))
        for i, row in enumerate(rows)
    ]
    assert "not reliably more than half" in report(mixed).verdict.notes[0]


def test_localization_is_a_mean_over_attempts_with_a_wrong_step():
    sharp = localize((0.0, 1.0, -3.0, -1.0), [(0, 2), (2, 4)], [2])
    blunt = localize((-1.0, -1.0, -1.0, -1.0), [(0, 1), (1, 4)], [2])
    glad = localize((1.0, 1.0), [(0, 1), (1, 2)], [1])  # nowhere negative: no share
    rows = attempts(1, "rwww", "rrrr")
    rows = [
        replace(r, localization=found)
        for r, found in zip(rows, (None, sharp, blunt, glad), strict=True)
    ]
    found = estimate_means(rows)
    assert found["negative_from_error"].number == found["tokens_from_error"].number == 2
    assert found["negative_from_error"].value == pytest.approx((1 + 0.75) / 2)
    assert found["tokens_from_error"].value == pytest.approx((0.5 + 0.75) / 2)


def test_attempts_without_a_teacher_are_counted_with_their_reasons():
    rows = attempts(10, "rwww", "rr--")
    rows[2] = replace(rows[2], missing="critique refused: it is empty")
    found = report(rows)
    assert found.estimates["has_teacher"].value == 0.5
    assert found.missing == {"nothing to show": 19, "critique refused: it is empty": 1}
    assert "No teacher: 19 attempts, nothing to show." in list_lines(found)
    # The failed attempt that has a teacher is all that the gain is over.
    assert found.estimates["gain_failed"].number == 10


def test_table_and_file_hold_the_same(tmp_path, capsys):
    rows = attempts(12, "rwww", "rrr-")
    found = report(rows)
    found.show()
    printed = capsys.readouterr().out
    assert "100.0%" in printed
    assert "Verdict: worth distilling" in printed
    found.save(tmp_path / "deep" / "probe.json")
    read = json.loads((tmp_path / "deep" / "probe.json").read_text())
    assert read == json.loads(json.dumps(asdict(found)))
    assert read["estimates"]["student"]["value"] == 0.25
    assert read["verdict"]["word"] == "worth distilling"


@pytest.mark.parametrize(
    "wrong", [{"min_gain": -0.1}, {"min_teachers": 2.0}, {"max_leaks": 1.5}, {"min_questions": 1}]
)
def test_thresholds_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Thresholds(**wrong)
