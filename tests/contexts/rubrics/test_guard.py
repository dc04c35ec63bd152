"""Citations of what the student cannot know, by hand."""

from __future__ import annotations

import pytest

from lightning_sd.contexts.rubrics.guard import LeakGuard
from lightning_sd.types import Question, Rollout


def rollout(text, prompt="Why is the sky blue?"):
    return Rollout(Question("1", prompt, ({"role": "user", "content": prompt},)), (1,), text, 0)


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("Blue light scatters more.", ()),
        ("For example, at noon.", ()),
        ("The RUBRIC wants scattering.", ("rubric",)),
        ("By the reference\n answer, and the second criterion.", ("reference answer", "criterion")),
        ("Rubrication is red ink.", ()),
    ],
)
def test_what_is_a_citation(text, cited):
    assert LeakGuard().find_citations(rollout(text)) == cited
    assert not LeakGuard().masks_rollout(rollout(text))
    assert LeakGuard(mask=True).masks_rollout(rollout(text)) == bool(cited)


def test_what_the_question_itself_says_is_no_leak():
    assert LeakGuard().find_citations(rollout("A rubric is a heading.", "What is a rubric?")) == ()


def test_phrases_may_be_replaced_but_not_be_empty():
    assert LeakGuard(["for example"]).find_citations(rollout("The rubric, for example.")) == (
        "for example",
    )
    for bad in ([], ["a", " "]):
        with pytest.raises(ValueError, match="phrases"):
            LeakGuard(bad)
