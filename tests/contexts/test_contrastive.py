from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from lightning_sd.contexts import ContrastiveHints
from lightning_sd.models.chat import encode_prompt
from lightning_sd.types import Message, Question, Rollout, Verdict, link_siblings, select_contrast

PROMPT: tuple[Message, ...] = (
    {"role": "system", "content": "Answer."},
    {"role": "user", "content": "What is 7+5, modulo 10?"},
)
QUESTION = Question("q", "What is 7+5, modulo 10?", PROMPT, reference="7+5=12, so 2.", answer="2")
BARE = "{question}|{hint}|{answer}"


def rollout(text: str, answer: str | None, question: Question = QUESTION) -> Rollout:
    correct = answer == "2"
    return Rollout(question, (9, 1), text, 0, verdict=Verdict(float(correct), correct, answer))


def group(*pairs: tuple[str, str | None]) -> list[Rollout]:
    return link_siblings([rollout(text, answer) for text, answer in pairs])


def hints(view: Any) -> tuple[str, list[str]]:
    """The right hint and the wrong ones that a view shows, under the template ``BARE``."""

    def of(messages: tuple[Message, ...]) -> str:
        assert messages[:-1] == PROMPT[:-1]
        return str(messages[-1]["content"]).split("|")[1]

    return of(view.messages), [of(messages) for messages in view.contrasts]


MIXED = (("a", "2"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", None), ("f", "5"))


def test_right_and_wrong_siblings_by_hand() -> None:
    """``a``'s only right sibling is ``b``; ``e`` gave no answer and is nobody's hint."""
    views = ContrastiveHints(wrong_hints=9, template=BARE).views(group(*MIXED))
    found = [hints(view) for view in views]
    assert [right for right, _ in found[:2]] == ["b", "a"]
    assert all(right in {"a", "b"} for right, _ in found)
    assert [set(wrong) for _, wrong in found] == [
        {"c", "d", "f"},
        {"c", "d", "f"},
        {"d", "f"},
        {"c", "f"},
        {"c", "d", "f"},
        {"c", "d"},
    ]
    assert all(len(set(wrong)) == len(wrong) for _, wrong in found)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_no_more_wrong_hints_than_wanted(k: int) -> None:
    for view in ContrastiveHints(wrong_hints=k, template=BARE).views(group(*MIXED)):
        assert view is not None
        assert 1 <= len(view.contrasts) <= k


@pytest.mark.parametrize(
    ("pairs", "seen"),
    [
        ([("a", "2"), ("b", "2")], [False, False]),
        ([("a", "3"), ("b", "4")], [False, False]),
        ([("a", "2")], [False]),
        # A lone success has no right sibling, a lone failure no wrong one.
        ([("a", "2"), ("b", "3"), ("c", "4")], [False, True, True]),
        ([("a", "2"), ("b", "2"), ("c", "3")], [True, True, False]),
        # What says word for word the same is its own hint, whoever wrote it.
        ([("a", "2"), ("a", "2"), ("c", "3"), ("c", "3")], [False, False, False, False]),
        ([("a", "2"), ("b", "2"), ("c", None)], [False, False, False]),
        ([("a", "2"), ("", "2"), ("c", "3")], [False, True, False]),
    ],
)
def test_who_has_no_view(pairs: list[tuple[str, str | None]], seen: list[bool]) -> None:
    views = ContrastiveHints().views(group(*pairs))
    assert [view is not None for view in views] == seen


def test_the_reference_serves_where_nobody_was_right() -> None:
    context = ContrastiveHints(hint="reference", template=BARE)
    views = context.views(group(("a", "3"), ("b", "4"), ("c", "5")))
    assert [hints(view)[0] for view in views] == [QUESTION.reference] * 3
    assert [set(hints(view)[1]) for view in views] == [{"b", "c"}, {"a", "c"}, {"a", "b"}]
    assert context.views(group(("a", "2"), ("b", "2"))) == [None, None]
    unknown = replace(QUESTION, reference=None)
    bare = link_siblings([rollout(text, answer, unknown) for text, answer in MIXED])
    assert context.views(bare) == [None] * 6


def test_wrong_hints_are_called_correct_in_the_same_words() -> None:
    """What differs between the prompts is the hint and its answer, nothing else."""
    view = ContrastiveHints().views(group(("aa", "2"), ("bb", "2"), ("cc", "3")))[0]
    assert view is not None
    right = view.messages[-1]["content"]
    (wrong,) = (messages[-1]["content"] for messages in view.contrasts)
    assert "Correct final answer: 2" in right
    assert wrong == right.replace("bb", "cc").replace("answer: 2", "answer: 3")


def test_hints_depend_on_texts_and_not_on_order() -> None:
    many = [(f"text {i}", "2" if i % 3 == 0 else str(3 + i % 4)) for i in range(12)]
    context = ContrastiveHints(wrong_hints=3, template=BARE)

    def shown(rollouts: list[Rollout]) -> dict[str, tuple[str, list[str]]]:
        pairs = zip(rollouts, context.views(rollouts), strict=True)
        return {rollout.text: hints(view) for rollout, view in pairs}

    first = shown(group(*many))
    assert shown(group(*many[::-1])) == first
    assert len({right for right, _ in first.values()}) > 1
    other = [(text + "!", answer) for text, answer in many]
    changed = [hints(v)[0].rstrip("!") for v in context.views(group(*other))]
    assert changed != [right for right, _ in first.values()]


def test_every_sibling_is_drawn_about_equally_often() -> None:
    counts: dict[str, int] = {}
    for i in range(400):
        pairs = [(f"own {i}", "3"), ("w", "4"), *((f"right {k}", "2") for k in range(4))]
        view = ContrastiveHints(template=BARE).views(group(*pairs))[0]
        right = hints(view)[0]
        counts[right] = counts.get(right, 0) + 1
    # Binomial with mean 100 and deviation 8.7: five of them.
    assert len(counts) == 4
    assert all(abs(count - 100) < 45 for count in counts.values())


def test_hints_are_the_same_in_another_process() -> None:
    code = (
        "from tests.contexts.test_contrastive import *\n"
        "print([hints(v) for v in ContrastiveHints(template=BARE).views(group(*MIXED))])"
    )
    here = [hints(v) for v in ContrastiveHints(template=BARE).views(group(*MIXED))]
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str(here)


def test_hints_are_cut_to_the_limit_one_by_one(tokenizer: Any) -> None:
    pairs = [("own", "3"), ("a" * 40, "2"), ("b" * 80, "4"), ("cc", "5")]
    context = ContrastiveHints(template=BARE)
    context.tokenizer = tokenizer
    whole = context.views(group(*pairs))[0]
    assert whole is not None
    assert not whole.cut

    def size(messages: tuple[Message, ...]) -> int:
        return len(encode_prompt(tokenizer, messages))

    limit = size(whole.messages) - 10
    context.max_prompt_tokens = limit
    cut = context.views(group(*pairs))[0]
    assert cut is not None
    assert all(size(messages) <= limit for messages in (cut.messages, *cut.contrasts))
    right, wrong = hints(cut)
    assert ("a" * 40).startswith(right)
    assert {text[:2] for text in wrong} == {"bb", "cc"}
    assert cut.cut["hint"] == 10
    assert cut.cut["wrong_hints"] > 10
    context.max_prompt_tokens = 5
    assert context.views(group(*pairs)) == [None] * 4


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"hint": "oracle"}, "hint='oracle'"),
        ({"wrong_hints": 0}, "wrong_hints=0"),
        ({"template": "{question} {reference}"}, "hint"),
    ],
)
def test_bad_options_name_themselves(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ContrastiveHints(**options)


def test_all_prompts_of_a_view_have_the_template_s_arguments() -> None:
    context = ContrastiveHints(template=BARE, template_kwargs={"loud": True})
    view = context.views(group(*MIXED))[0]
    assert view is not None
    wrong = select_contrast(view, 0)
    assert wrong is not None
    assert view.template_kwargs == wrong.template_kwargs == {"loud": True}
    assert wrong.messages == view.contrasts[0]
    assert select_contrast(view, len(view.contrasts)) is None
