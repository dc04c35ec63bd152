"""What RESD's teacher sees, what the student writes for it, and what is made of bad writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_sd.contexts import (
    CritiqueReflector,
    InsightCurator,
    LMCurator,
    LMReflector,
    Reflection,
)
from lightning_sd.contexts.reflection import Addition, Note, Playbook
from lightning_sd.contexts.reflection.json_output import find_json_object, read_additions, read_tags
from lightning_sd.lab import ArithmeticTask
from lightning_sd.rollout import Completion
from lightning_sd.types import Critique, Question, Rollout, Verdict, link_siblings

GOOD = """<think>{"key_insight": "not this"}</think>Here it is:
```json
{"reasoning": "r", "error_identification": "step 2", "root_cause_analysis": 7,
 "correct_approach": "multiply {first}", "key_insight": "3*7 ends in 1",
 "bullet_tags": [{"id": "p1", "tag": "helpful"}, {"id": "p2", "tag": "sideways"}]}
```"""
LESSONS = '{"operations": [{"type": "ADD", "section": "common mistakes", "content": "3*7 is 1"}]}'


def rollout(
    text: str = "wrong", *, reward: float = 0.0, feedback: str | None = None, name: str = "q"
) -> Rollout:
    question = Question(name, "7+5", ({"role": "user", "content": "7+5"},), answer="2")
    verdict = Verdict(reward, correct=reward >= 1, feedback=feedback)
    ids = tuple(text.encode())
    return Rollout(question, ids=ids, text=text, group=0, verdict=verdict)


class Host:
    """A module whose student writes what the script says."""

    def __init__(self, tokenizer: Any, script: Sequence[str]) -> None:
        self.tokenizer, self.teacher_context = tokenizer, None
        self.script, self.prompts = list(script), []

    def write(
        self, prompts: Any, *, sampler: Any, teacher: bool = False, template_kwargs: Any = None
    ) -> list[Completion]:
        assert not teacher, "RESD reflects with the student's weights"
        self.prompts += [messages[-1]["content"] for messages in prompts]
        return [
            Completion(i, tuple(self.tokenizer.encode(self.script.pop(0))), (), True)
            for i in range(len(prompts))
        ]


def ready(context: Reflection, tokenizer: Any, script: Sequence[str] = ()) -> Reflection:
    context._host = Host(tokenizer, script)  # type: ignore[assignment]
    return context


def shown(context: Reflection, of: Rollout) -> str | None:
    (view,) = context.views([of])
    return None if view is None else view.messages[-1]["content"]


def test_a_failure_is_reflected_on_curated_and_shown(tokenizer: Any) -> None:
    context = ready(Reflection(LMReflector(), LMCurator()), tokenizer, [GOOD, LESSONS])
    context.playbook = Playbook().add([Addition("others", "old lesson")])
    failed = rollout("7+5=3", feedback="step 1 is wrong")
    (only,) = context.prepare_batch([failed])
    reflect, curate = context._host.prompts  # type: ignore[union-attr]
    for piece in ("7+5", "7+5=3", "step 1 is wrong", "[p1] helpful=0 harmful=0 :: old lesson"):
        assert piece in reflect
    for piece in ("7+5", "3*7 ends in 1", "[p1] helpful=1 harmful=0 :: old lesson", "heuristics"):
        assert piece in curate
    content = shown(context, only)
    assert content is not None
    for piece in (
        "[p1] helpful=1 harmful=0 :: old lesson",
        "[p2] helpful=0 harmful=0 :: 3*7 is 1",
        "7+5=3",
        "step 1 is wrong",
        "correct approach: multiply {first}",
        "key insight: 3*7 ends in 1",
    ):
        assert piece in content
    assert "not this" not in content
    assert "root cause" not in content  # it was no text
    assert "succeeded" not in content  # there is no solution, so no block
    assert context.playbook.update == 1


def test_blocks_without_content_leave_nothing_behind(tokenizer: Any) -> None:
    context = ready(Reflection(), tokenizer)
    content = shown(context, rollout("2", reward=1.0))
    assert content is not None
    assert "A solution of this problem that succeeded:\n2\n\nNow solve" in content
    for word in ("Lessons", "earlier attempt at this", "environment", "reflection"):
        assert word not in content
    assert shown(context, rollout()) is None  # no solution, feedback or reflection
    context.playbook = Playbook().add([Addition("others", "a lesson alone is no context")])
    assert shown(context, rollout()) is None


def test_solution_is_ones_own_then_a_siblings_then_the_buffers(tokenizer: Any) -> None:
    own, peer = rollout("own", reward=1.0), rollout("<think>hm</think>peer", reward=1.0)
    failed = rollout("failed", feedback="why")
    group = link_siblings([failed, peer, own])
    context = ready(Reflection(), tokenizer)
    context.buffer.add("q", "buffered")
    assert [context.fields(r)["solution"] for r in group] == ["peer", "peer", "own"]  # type: ignore[index]
    others = ready(Reflection(own_success=False), tokenizer)
    others.buffer.add("q", "buffered")
    fields = [others.fields(r) for r in group]
    assert [f and f["solution"] for f in fields] == ["peer", "own", "peer"]
    assert context.fields(failed)["solution"] == "buffered"  # type: ignore[index]
    alone = ready(Reflection(own_success=False), tokenizer)
    alone.prepare_batch([own])
    assert alone.buffer.get_newest("q") == "own"
    assert alone.fields(own) is None  # its own text does not count


@pytest.mark.parametrize(
    ("policy", "with_solution", "without"),
    [("without_solution", "", "why"), ("always", "why", "why"), ("never", "", None)],
)
def test_feedback(tokenizer: Any, policy: Any, with_solution: str, without: str | None) -> None:
    context = ready(Reflection(show_feedback=policy), tokenizer)
    failed = rollout(feedback="why")
    fields = context.fields(failed)
    assert (fields and fields["feedback"]) == without
    context.buffer.add("q", "solved")
    assert context.fields(failed)["feedback"] == with_solution  # type: ignore[index]
    # A success has no use for what was said about failures.
    assert context.fields(rollout("2", reward=1.0, feedback="well"))["feedback"] == ""  # type: ignore[index]


def test_threshold_decides_what_is_a_failure(tokenizer: Any) -> None:
    half = rollout("half", reward=0.5)
    assert ready(Reflection(threshold=0.5), tokenizer).fields(half) is not None
    assert ready(Reflection(threshold=0.6), tokenizer).fields(half) is None


def test_only_the_first_of_some_blocks(tokenizer: Any) -> None:
    context = ready(
        Reflection(CritiqueReflector(), only_first_of=["solution", "reflection"]), tokenizer
    )
    failed = replace(rollout(), critique=Critique("<step_1>7+5=2</step_1>", "D"))
    context.prepare_batch([failed])
    assert context.fields(failed)["reflection"] == "<step_1>7+5=2</step_1>"  # type: ignore[index]
    context.buffer.add("q", "solved")
    fields = context.fields(failed)
    assert fields is not None
    assert (fields["reflection"], fields["solution"], fields["trial"]) == ("", "solved", "wrong")


def test_too_long_a_prompt_loses_whole_blocks_but_never_the_question(tokenizer: Any) -> None:
    context = ready(Reflection(max_prompt_tokens=330), tokenizer)
    context.playbook = Playbook().add([Addition("others", "lesson " * 40)])
    context.buffer.add("q", "solved " * 10)
    content = shown(context, rollout("trial " * 40))
    assert content is not None
    assert "Problem:\n7+5\n" in content
    assert "solved" in content
    assert "An earlier attempt" not in content
    assert shown(ready(Reflection(max_prompt_tokens=20), tokenizer), rollout("2", reward=1)) is None


BAD = [
    "",
    "I would rather not.",
    "{",
    "{" * 3000,
    '{"a":' * 3000,
    "[1, 2, 3]",
    '{"reasoning": "only"}',
    '{"key_insight": ""}',
    '{"key_insight": ["a list"], "correct_approach": null}',
    '{"key_insight": "cut o',
    "<think>" + GOOD.removeprefix("<think>").replace("</think>", ""),
]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_bad_reflections_are_refused_and_counted(tokenizer: Any, text: str) -> None:
    context = ready(Reflection(LMReflector(), LMCurator()), tokenizer, [text])
    failed = rollout()
    context.prepare_batch([failed])
    assert shown(context, failed) is None
    assert context._means["reflections_refused"] == 1
    assert context._means["reflections"] == 0
    assert len(context.playbook) == 0


@pytest.mark.parametrize("text", ["", "no", '{"operations": "ADD"}', '{"operations": {"a": 1}}'])
def test_bad_curations_are_refused_and_counted(tokenizer: Any, text: str) -> None:
    context = ready(Reflection(LMReflector(), LMCurator()), tokenizer, [GOOD, text])
    failed = rollout()
    context.prepare_batch([failed])
    assert shown(context, failed) is not None
    assert context._means["curations_refused"] == 1
    assert len(context.playbook) == 0


def test_parsing_takes_what_is_good_of_what_is_mixed() -> None:
    assert find_json_object('{"a": 1} {"b": {"c": 2}}', ["b"]) == {"b": {"c": 2}}
    assert find_json_object('x {"a": "line\nbreak"}', ["a"]) == {"a": "line\nbreak"}
    assert find_json_object('{"a": ' + "9" * 5000 + "}", ["a"]) is None
    mixed: dict[str, Any] = {
        "operations": [
            {"type": "add", "content": " x "},
            {"type": "DELETE", "content": "y"},
            {"type": "ADD", "content": 3},
            "z",
            {"type": "ADD", "section": "others", "content": "w"},
        ],
        "bullet_tags": [{"id": "[p1]", "tag": "HARMFUL"}, {"id": 2, "tag": "helpful"}, None],
    }
    assert read_additions(mixed) == (Addition("", "x"), Addition("others", "w"))
    assert read_tags(mixed) == {"p1": "harmful"}
    assert read_tags({"bullet_tags": "p1"}) == {}


def test_the_rule_reflects_with_the_critique_and_learns_its_first_changed_step() -> None:
    task = ArithmeticTask(train_size=1, val_size=1, test_size=1)
    question = task.question("7+5*3-4")
    text = "<step_1>7+5=2</step_1><step_2>2*3=7</step_2><step_3>7-4=3</step_3><answer>3</answer>"
    failed = Rollout(question, (1,), text, 0, critique=task.repair(question, text))
    book = Playbook().add(
        [Addition("others", "2*3=6"), Addition("others", "2*3=7"), Addition("others", "1+1=2")]
    )
    (note,) = CritiqueReflector().reflect([failed], book, lambda prompts, sampler: [])
    assert note is not None
    assert note.text == failed.critique.text  # type: ignore[union-attr]
    assert note.insight == "2*3=6"
    assert note.tags == {"p1": "helpful", "p2": "harmful"}
    refused = replace(failed, critique=Critique("", "", refused="no"))
    notes = CritiqueReflector().reflect([refused, replace(failed, critique=None)], book, list)  # type: ignore[arg-type]
    assert notes == [None, None]
    curated = InsightCurator().curate([note, Note("q", "text")], book, list)  # type: ignore[arg-type]
    assert curated == [(Addition("formulas and calculations", "2*3=6"),), ()]


def test_a_teachers_text_is_no_attempt(tokenizer: Any) -> None:
    context = ready(Reflection(LMReflector()), tokenizer)
    context.prepare_batch([replace(rollout("2", reward=1.0), origin="teacher")])
    context.prepare_batch([])
    assert len(context.buffer) == 0
    assert context.playbook.update == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reflection(curator=InsightCurator()), "without reflector"),
        (lambda: Reflection(show_feedback="often"), "show_feedback='often'"),
        (lambda: Reflection(blocks={"notes": "{notes}"}), "blocks: .*notes"),
        (lambda: Reflection(blocks={"trial": "no field"}), "lacks {trial}"),
        (lambda: Reflection(blocks={"trial": "{trial} {x}"}), "cannot be filled"),
        (lambda: Reflection(only_first_of=["hint"]), "only_first_of: .*hint"),
        (lambda: Reflection(template="no question"), "lacks {question}"),
        (lambda: Reflection(buffered=-1), "per_question=-1"),
        (lambda: LMReflector(prompt="{attempt}"), "lacks {question}"),
        (lambda: LMCurator(prompt="{playbook} {reflection} {x}"), "cannot be filled"),
    ],
)
def test_bad_options_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_needs_are_the_reflectors() -> None:
    assert Reflection().required_evidence == frozenset()
    assert Reflection(LMReflector()).required_evidence == frozenset()
    assert Reflection(CritiqueReflector()).required_evidence == {"critique"}


def test_a_module_that_cannot_write_is_named(tokenizer: Any) -> None:
    context = Reflection(LMReflector())
    context._host = SimpleNamespace(tokenizer=tokenizer, teacher_context=None)
    with pytest.raises(TypeError, match="write"):
        context.prepare_batch([rollout()])
