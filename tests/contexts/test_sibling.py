"""SDPO's and SDFT's contexts: who is shown to whom, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_sd.contexts import Demonstration, ReferenceSolution, SiblingDemonstration
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Question, Rollout, Verdict, link_siblings

QUESTION = Question(id="q", text="2*3?", messages=({"role": "user", "content": "2*3?"},))


def group(*rewards: float, number: int = 0, feedback: str | None = None) -> list[Rollout]:
    """Rollouts whose texts are ``a0``, ``b0`` ... of one group."""
    return [
        Rollout(
            QUESTION,
            (5,),
            f"{'abcdefgh'[i]}{number}",
            group=number,
            verdict=Verdict(reward, reward == 1, feedback=feedback and f"{feedback} {i}"),
        )
        for i, reward in enumerate(rewards)
    ]


def shown(context: Any, rollouts: list[Rollout]) -> list[str | None]:
    views = context.views(link_siblings(rollouts))
    return [None if view is None else view.messages[-1]["content"] for view in views]


def solutions(*texts: str | None) -> list[str | None]:
    end = "\n\nCorrectly solve the original question."
    return [None if t is None else f"2*3?\n\nCorrect solution:\n{t}{end}" for t in texts]


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ((0, 1, 0, 1), ("b0", "d0", "b0", "b0")),
        ((0, 1, 0, 0), ("b0", None, "b0", "b0")),
        ((1, 1, 1), ("b0", "a0", "a0")),
        ((0, 0), (None, None)),
        ((1,), (None,)),
        ((0,), (None,)),
        ((0.5, 0.5), (None, None)),
    ],
)
def test_the_first_successful_other_is_the_demonstration(rewards: Any, expected: Any) -> None:
    assert shown(SiblingDemonstration(), group(*rewards)) == solutions(*expected)


def test_groups_do_not_see_each_other() -> None:
    first, second = group(0, 1), group(0, 0, number=1)
    mixed = [second[0], first[0], first[1], second[1]]
    assert shown(SiblingDemonstration(), mixed) == solutions(None, "b0", None, None)


def test_own_success_is_for_those_alone() -> None:
    context = SiblingDemonstration(own_success=True)
    assert shown(context, group(0, 1, 0)) == solutions("b0", "b0", "b0")
    assert shown(context, group(1, 1)) == solutions("b0", "a0")
    assert shown(context, group(0)) == [None]


FEEDBACK = "\n\nThe following is feedback from your unsuccessful earlier attempt:\n"


@pytest.mark.parametrize(
    ("kind", "both", "alone"),
    [("fallback", False, True), ("always", True, True), ("never", False, False)],
)
def test_feedback_stands_in_or_beside_or_nowhere(kind: Any, both: bool, alone: bool) -> None:
    context = SiblingDemonstration(feedback=kind)
    failed, won = shown(context, group(0, 1, feedback="wrong"))
    assert failed is not None
    assert "b0" in failed
    assert (f"{FEEDBACK}wrong 0" in failed) == both
    # A lone success has no sibling, and its feedback is not about a failure.
    assert won is None
    (only,) = shown(context, group(0, feedback="wrong"))
    assert (only is not None) == alone
    if only is not None:
        assert only == f"2*3?{FEEDBACK}wrong 0\n\nCorrectly solve the original question."


def test_the_own_attempt_is_shown_only_if_asked_and_failed() -> None:
    rollouts = group(0, 1, 1)
    assert all("a0" not in (text or "") for text in shown(SiblingDemonstration(), rollouts)[:1])
    failed, second, _ = shown(SiblingDemonstration(own_attempt=True), rollouts)
    assert "\n\nYour earlier attempt:\na0" in (failed or "")
    assert "attempt" not in (second or "")
    # An attempt is no context by itself.
    assert shown(SiblingDemonstration(own_attempt=True), group(0, 0)) == [None, None]


def test_thinking_is_no_part_of_a_demonstration() -> None:
    texts = ["x", "<think>hm {0}</think> six", "inside</think>6", "<think>never ends"]
    rollouts = [
        Rollout(QUESTION, (5,), text, group=0, verdict=Verdict(float(i > 0), i > 0))
        for i, text in enumerate(texts)
    ]
    found = shown(SiblingDemonstration(), rollouts)
    assert found == solutions("six", "6", "six", "six")
    assert shown(SiblingDemonstration(), [rollouts[0], rollouts[3]]) == [None, None]
    assert extract_response("no tags") == "no tags"


def test_the_pieces_may_be_worded_anew() -> None:
    context = SiblingDemonstration(
        template="{question}{solution}{feedback}!",
        solution_template=" S:{solution}",
        feedback_template=" F:{feedback}",
        feedback="always",
    )
    assert shown(context, group(0, 1, feedback="no {x}")) == ["2*3? S:b0 F:no {x} 0!", None]


def test_what_is_too_long_is_cut_in_order(tokenizer: Any) -> None:
    rollouts = group(0, 1, feedback="wrong " * 20)
    context = SiblingDemonstration(feedback="always", own_attempt=True)
    context.tokenizer = tokenizer
    whole = shown(context, rollouts)[0]
    context.max_prompt_tokens = len(tokenizer.encode(whole)) - 40
    view = context.views(link_siblings(rollouts))[0]
    assert view is not None
    assert set(view.cut) == {"attempt", "feedback"}
    content = view.messages[-1]["content"]
    assert "Correct solution:\nb0" in content
    # A piece of which nothing is left takes its heading with it.
    assert "earlier attempt:\na0" not in content
    assert "Your earlier attempt" not in content


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"feedback": "sometimes"}, "feedback='sometimes'"),
        ({"solution_template": "x"}, "solution_template='x'"),
        ({"feedback_template": "x"}, "feedback_template='x'"),
        ({"attempt_template": "x"}, "attempt_template='x'"),
        ({"template": "{solution}"}, "lacks {question}"),
    ],
)
def test_bad_settings_name_themselves(settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SiblingDemonstration(**settings)


@pytest.mark.parametrize(
    ("extra", "reference", "expected"),
    [
        ({"demonstration": "like so"}, "ref", "like so"),
        ({}, "ref", "ref"),
        ({"demonstration": ""}, "ref", "ref"),
        ({}, None, None),
    ],
)
def test_demonstrations_come_from_the_data(extra: Any, reference: Any, expected: Any) -> None:
    question = Question("q", "2*3?", QUESTION.messages, reference=reference, extra=extra)
    (text,) = shown(Demonstration(), [Rollout(question, (5,), "6", group=0)])
    if expected is None:
        assert text is None
        return
    assert text == (
        f"2*3?\n\nThis is an example for a response to the question:\n{expected}\n\n"
        "Now answer with a response of your own, including the thinking process."
    )


def test_opsd_s_second_wording_is_a_template() -> None:
    """The hardened wording of the docs goes through YAML, not through code."""
    from pathlib import Path

    import yaml

    page = (Path(__file__).parents[2] / "docs/methods/opsd.md").read_text()
    block = next(b for b in page.split("```yaml\n")[1:] if "template:" in b).split("```")[0]
    template = yaml.safe_load(block)["teacher_context"]["init_args"]["template"]
    question = Question("q", "2*3?", QUESTION.messages, reference="six {x}")
    context = ReferenceSolution(template=template)
    (text,) = shown(context, [Rollout(question, (5,), "6", group=0)])
    assert "Reference Solution Begin ===\nsix {x}\n=== Reference" in (text or "")
