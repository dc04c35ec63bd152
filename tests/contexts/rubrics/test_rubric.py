"""What counts as a rubric, and what is made of a text that holds none."""

from __future__ import annotations

import json

import pytest

from lightning_sd.contexts.rubrics import Rubric, parse_rubric


def criteria(number=3, **changes):
    """Criteria in good form, the last one negative, the first one changed."""
    found = [
        {"title": f"T{i}", "description": f"Says {i}.", "weight": i % 10 + 1}
        for i in range(number - 1)
    ]
    found.append({"title": "Error", "description": "Says no.", "weight": -1})
    found[0].update(changes)
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("```json\n", "\n```"),
        ("Here [it] is [1, 2]: ", " That [was] it."),
        ("<think>[{}] maybe?</think>", ""),
        ("still thinking</think>\n", ""),
        ('[{"title": "draft"}] no, better: ', ""),
    ],
)
def test_the_array_is_found(before, after):
    parsed = parse_rubric(before + json.dumps(criteria(25)) + after)
    assert parsed.refused is None
    assert parsed.rubric.to_list() == criteria(25)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (criteria(2), "2 criteria"),
        (criteria(26), "26 criteria"),
        ([*criteria()[:2], 3], "criterion 3 is not an object"),
        (criteria(title=" "), "criterion 1 has no title"),
        (criteria(description=None), "criterion 1 has no description"),
        (criteria(description="word " * 41), "41 words"),
        (criteria(weight="5"), "whole number"),
        (criteria(weight=True), "whole number"),
        (criteria(weight=2.5), "whole number"),
        (criteria(weight=11), "weight 11"),
        (criteria(weight=-2), "weight -2"),
        (criteria(weight=0), "weight 0"),
        (criteria()[:2] * 2, "no negative criterion"),
    ],
)
def test_bad_rubrics_are_refused_with_a_reason(value, reason):
    parsed = parse_rubric("Here: " + json.dumps(value))
    assert parsed.rubric is None
    assert reason in parsed.refused
    with pytest.raises(ValueError, match=reason):
        Rubric.from_list(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON array"),
        ('{"title": "a"}', "no JSON array"),
        ("[1, 2, 3, 4]", "no JSON array"),
        (json.dumps(criteria())[:-1], "broken JSON"),
        ("[{" * 5000, "no JSON array|broken JSON"),
        ("<think>" + json.dumps(criteria()), "no JSON array"),
        (json.dumps(criteria()) + "</think> Sorry.", "no JSON array"),
    ],
)
def test_texts_without_a_rubric_have_a_reason(text, reason):
    refused = parse_rubric(text).refused
    assert any(one in refused for one in reason.split("|"))


def test_a_cut_off_text_is_refused_even_if_an_array_stands_there():
    assert "cut off" in parse_rubric(json.dumps(criteria()), complete=False).refused


def test_forty_words_and_whole_floats_pass_and_rendering_reads_back():
    rubric = Rubric.from_list(criteria(description="word " * 40, weight=4.0))
    assert rubric.criteria[0].weight == 4
    assert isinstance(rubric.criteria[0].weight, int)
    assert parse_rubric(rubric.render()).rubric == rubric
    assert "\n" not in rubric.render()
