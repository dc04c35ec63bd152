"""Phrases and copied runs, against texts written by hand and a slow count."""

from __future__ import annotations

import random

import pytest

from lightning_sd.text.leaks import LEAK_PHRASES, count_copied_runs, find_leaked_phrases


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The reference solution says 4.", ("reference solution",)),
        ("As the CRITIQUE points out, step 2 is off.", ("critique",)),
        ("By the rubric, and as shown  above, 4.", ("rubric", "as shown above")),
        ("Given the\nfeedback, I try again.", ("the feedback",)),
        ("An example: 4.", ("example",)),
        ("Counterexamples and critiques of feedback.", ()),
        ("<step_1>7+5=2</step_1><answer>2</answer>", ()),
        ("", ()),
    ],
)
def test_phrases_are_found_as_whole_words(text, found):
    assert find_leaked_phrases(text, LEAK_PHRASES) == found


def test_what_the_student_is_shown_itself_is_no_leak():
    text = "The rubric asks for an example."
    assert find_leaked_phrases(text, LEAK_PHRASES, own_prompt="Give an  Example.") == ("rubric",)


def test_odd_phrases_are_words_and_no_patterns():
    assert find_leaked_phrases("It costs 4 (see above).", ["(see above)", "c.sts", " "]) == (
        "(see above)",
    )


def test_copied_runs_as_a_slow_count_finds_them():
    draw = random.Random(0)
    for _ in range(50):
        answer, shown, own = ([draw.randrange(3) for _ in range(12)] for _ in range(3))
        length = draw.randrange(1, 5)

        def holds(row, run, length=length):
            return any(row[i : i + length] == run for i in range(len(row)))

        runs = [answer[i : i + length] for i in range(13 - length)]
        copied = sum(holds(shown, run) and not holds(own, run) for run in runs)
        assert count_copied_runs(answer, shown, own, length) == (copied, len(runs))


def test_answers_shorter_than_a_run_have_none():
    assert count_copied_runs([1, 2], [1, 2], [], length=3) == (0, 0)
