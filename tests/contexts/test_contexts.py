from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest

from lightning_sd.cli.main import main
from lightning_sd.contexts import (
    NoContext,
    ReferenceSolution,
    StepAlignedCritique,
    TeacherContext,
)
from lightning_sd.models.chat import encode_prompt
from lightning_sd.types import Critique, Message, Question, Rollout, TeacherView

TEXT = "What is 7+5, modulo 10? Give the answer in {braces} and 100%."
REFERENCE = "<step_1>7+5=12</step_1><step_2>12-10=2</step_2><answer>2</answer> {0} \\boxed{2}"
MESSAGES: tuple[Message, ...] = (
    {"role": "system", "content": "Answer in {tags}."},
    {"role": "user", "content": "earlier"},
    {"role": "assistant", "content": "turn {x}"},
    {"role": "user", "content": f"Solve: {TEXT}"},
)


def rollout(reference: str | None = REFERENCE, critique: str | None = None) -> Rollout:
    question = Question(id="q", text=TEXT, messages=MESSAGES, reference=reference)
    found = None if critique is None else Critique(text=critique, case="D")
    return Rollout(question, ids=(9, 1), text="?", group=0, critique=found)


class TwoHints(TeacherContext):
    """Two fields, of which the second is given up first."""

    template = "{question}|{first}|{second}|end"
    cut_fields: ClassVar[tuple[str, ...]] = ("second", "first")

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        return {"first": "alpha " * 20, "second": "beta " * 20}


def ready(context: TeacherContext, tokenizer: Any) -> Any:
    context.tokenizer = tokenizer
    return context


def tokens(view: TeacherView, tokenizer: Any) -> int:
    return len(encode_prompt(tokenizer, view.messages))


def only(context: TeacherContext, of: Rollout) -> TeacherView | None:
    (view,) = context.views([of])
    return view


CONTEXTS = [
    (ReferenceSolution, rollout(), "reference", REFERENCE),
    (StepAlignedCritique, rollout(critique=REFERENCE), "critique", REFERENCE),
]


@pytest.mark.parametrize(("kind", "of", "field", "text"), CONTEXTS)
def test_without_a_limit_everything_stands_there_word_for_word(
    tokenizer: Any, kind: Any, of: Rollout, field: str, text: str
) -> None:
    context = ready(kind(), tokenizer)
    view = only(context, of)
    assert view is not None
    assert view.cut == {}
    assert view.messages[:-1] == MESSAGES[:-1]
    assert view.messages[-1]["role"] == "user"
    expected = context.template.replace("{question}", TEXT).replace(f"{{{field}}}", text)
    assert view.messages[-1]["content"] == expected


@pytest.mark.parametrize(("kind", "of", "field", "text"), CONTEXTS)
def test_only_the_field_is_cut_at_any_limit(
    tokenizer: Any, kind: Any, of: Rollout, field: str, text: str
) -> None:
    """The question, the template and the earlier turns stand whole in every view there is."""
    before, after = kind.template.replace("{question}", TEXT).split(f"{{{field}}}")
    whole = tokens(only(ready(kind(), tokenizer), of), tokenizer)  # type: ignore[arg-type]
    ids = tokenizer.encode(text)
    bare = whole - len(ids)
    seen = []
    for limit in range(max(1, bare - 5), whole + 3):
        view = only(ready(kind(max_prompt_tokens=limit), tokenizer), of)
        if view is None:
            assert limit <= bare
            continue
        content = view.messages[-1]["content"]
        assert content.startswith(before)
        assert content.endswith(after)
        kept = content[len(before) : len(content) - len(after)]
        assert text.startswith(kept)
        assert view.messages[:-1] == MESSAGES[:-1]
        assert tokens(view, tokenizer) <= limit
        # Nothing is wasted, but for a seam that splits otherwise than the whole did.
        assert tokens(view, tokenizer) >= min(limit, whole) - 3
        assert view.cut.get(field, 0) == len(ids) - len(tokenizer.encode(kept))
        assert set(view.cut) <= {field}
        seen.append(view.cut.get(field, 0))
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 0
    assert seen[0] >= len(ids) - 3


def test_a_limit_that_just_fits_cuts_nothing_and_one_less_does(tokenizer: Any) -> None:
    whole = tokens(only(ready(ReferenceSolution(), tokenizer), rollout()), tokenizer)  # type: ignore[arg-type]
    view = only(ready(ReferenceSolution(max_prompt_tokens=whole), tokenizer), rollout())
    assert view is not None
    assert view.cut == {}
    view = only(ready(ReferenceSolution(max_prompt_tokens=whole - 1), tokenizer), rollout())
    assert view is not None
    assert view.cut["reference"] >= 1


def test_a_question_too_long_by_itself_has_no_teacher(tokenizer: Any) -> None:
    """A peer keeps the prompt's last tokens, and its teacher never sees the question."""
    context = ready(ReferenceSolution(max_prompt_tokens=20), tokenizer)
    assert context.views([rollout(), rollout()]) == [None, None]


def test_fields_are_given_up_in_their_order(tokenizer: Any) -> None:
    whole = tokens(only(ready(TwoHints(), tokenizer), rollout()), tokenizer)  # type: ignore[arg-type]
    second = len(tokenizer.encode("beta " * 20))
    slight = only(ready(TwoHints(max_prompt_tokens=whole - 5), tokenizer), rollout())
    assert slight is not None
    assert set(slight.cut) == {"second"}
    assert 5 <= slight.cut["second"] <= 8
    assert "alpha " * 20 in slight.messages[-1]["content"]
    strong = only(ready(TwoHints(max_prompt_tokens=whole - second - 9), tokenizer), rollout())
    assert strong is not None
    assert strong.cut["second"] == second
    assert 9 <= strong.cut["first"] <= 12
    content = strong.messages[-1]["content"]
    assert "beta" not in content
    assert content.startswith(TEXT + "|alpha ")
    assert content.endswith("||end")


def test_text_beyond_ascii_never_exceeds_the_limit(tokenizer: Any) -> None:
    """A cut through a character's bytes decodes to something longer than what was cut off."""
    of = rollout("Schlüssel → ∑ 𝛼² 漢字かな " * 5)
    whole = tokens(only(ready(ReferenceSolution(), tokenizer), of), tokenizer)  # type: ignore[arg-type]
    for limit in range(whole - 40, whole):
        view = only(ready(ReferenceSolution(max_prompt_tokens=limit), tokenizer), of)
        assert view is not None
        assert tokens(view, tokenizer) <= limit
        assert view.cut["reference"] > 0
        assert TEXT in view.messages[-1]["content"]


def test_braces_and_percent_signs_are_left_alone(tokenizer: Any) -> None:
    nasty = "{question} {critique} {} {0} {{x}} %s %(a)s \\boxed{\\frac{1}{2}}"
    view = only(ready(StepAlignedCritique(), tokenizer), rollout(critique=nasty))
    assert view is not None
    assert nasty in view.messages[-1]["content"]
    assert TEXT in view.messages[-1]["content"]


@pytest.mark.parametrize("of", [rollout(None), rollout("")])
def test_no_reference_no_teacher(tokenizer: Any, of: Rollout) -> None:
    assert only(ready(ReferenceSolution(), tokenizer), of) is None


def test_a_missing_empty_or_refused_critique_gives_no_teacher(tokenizer: Any) -> None:
    refused = replace(rollout(), critique=Critique(text="repaired", case="D", refused="leaks"))
    context = ready(StepAlignedCritique(), tokenizer)
    views = context.views([rollout(), rollout(critique=""), refused, rollout(critique="fine")])
    assert [view is None for view in views] == [True, True, True, False]


def test_the_reference_is_not_shown_beside_the_critique(tokenizer: Any) -> None:
    view = only(ready(StepAlignedCritique(), tokenizer), rollout(critique="the repair"))
    assert view is not None
    assert REFERENCE not in view.messages[-1]["content"]


def test_binary_reward_never_gives_a_view(tokenizer: Any) -> None:
    assert not NoContext.gives_views
    assert ready(NoContext(), tokenizer).views([rollout(critique="x")] * 2) == [None, None]
    assert ReferenceSolution.gives_views


def test_the_wording_may_be_replaced(tokenizer: Any) -> None:
    context = ready(ReferenceSolution(template="Q: {question} A: {reference}!"), tokenizer)
    view = only(context, rollout("two"))
    assert view is not None
    assert view.messages[-1]["content"] == f"Q: {TEXT} A: two!"
    assert ReferenceSolution().template != context.template


def test_only_the_step_aligned_context_needs_critiques() -> None:
    assert StepAlignedCritique.required_evidence == {"critique"}
    assert ReferenceSolution.required_evidence == NoContext.required_evidence == frozenset()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"template": "{reference}"}, r"template='\{reference\}' of ReferenceSolution"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens=0"),
        ({"max_prompt_tokens": -3}, "max_prompt_tokens=-3"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ReferenceSolution(**settings)


class Host(pl.LightningModule):
    """A module that is not ours, with the two attributes of the protocol."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.teacher_context: Any = None


def test_a_context_hands_itself_to_any_module_with_the_protocol(tokenizer: Any) -> None:
    host, context = Host(tokenizer), ReferenceSolution()
    for stage in ("fit", "validate"):
        context.setup(pl.Trainer(logger=False), host, stage)
    assert host.teacher_context is context
    assert host.teacher_context.views([rollout()])[0] is not None


def test_a_module_without_the_protocol_is_named() -> None:
    with pytest.raises(TypeError, match=r"ReferenceSolution needs a module .* LightningModule"):
        ReferenceSolution().setup(pl.Trainer(logger=False), pl.LightningModule(), "fit")


def test_two_contexts_are_refused(tokenizer: Any) -> None:
    host = Host(tokenizer)
    ReferenceSolution().setup(pl.Trainer(logger=False), host, "fit")
    with pytest.raises(ValueError, match="ReferenceSolution and StepAlignedCritique"):
        StepAlignedCritique().setup(pl.Trainer(logger=False), host, "fit")


def test_a_class_that_misspells_fields_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="Hint defines `field` and no `fields`: did you mean"):

        class Hint(TeacherContext):
            template = "{question} {hint}"

            def field(self, rollout: Rollout) -> Mapping[str, str] | None:
                return {"hint": "carry"}


def test_a_helper_of_a_class_that_has_fields_may_have_any_name() -> None:
    class Hint(TwoHints):
        def field(self) -> str:
            return "alpha"

    assert Hint().fields(rollout()) is not None


def test_a_class_without_fields_cannot_be_made() -> None:
    class Nothing(TeacherContext):
        template = "{question}"

    with pytest.raises(TypeError, match="fields"):
        Nothing()  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("method", "named"), [("field", "did you mean `fields`"), ("hint", "abstract")]
)
def test_the_command_line_refuses_it_at_configuration(
    tmp_path: Any, monkeypatch: Any, capsys: Any, method: str, named: str
) -> None:
    source = (
        "from lightning_sd import TeacherContext\n"
        "class Hint(TeacherContext):\n"
        "    template = '{question} {hint}'\n"
        f"    def {method}(self, rollout):\n"
        "        return {'hint': 'carry'}\n"
    )
    (tmp_path / f"own_{method}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    config = Path(__file__).parents[2] / "configs/quickstart.yaml"
    args = ["fit", "--config", str(config), "--teacher_context", f"own_{method}.Hint"]
    with pytest.raises(SystemExit) as stopped:
        main([*args, "--print_config"])
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


def loud(tokenizer: Any) -> Any:
    """The tokenizer with a template that writes 30 tokens more if it is asked to."""
    marked = copy.deepcopy(tokenizer)
    marked.chat_template = "{% if loud %}" + "9" * 30 + "{% endif %}" + marked.chat_template
    return marked


def test_a_view_carries_the_template_s_arguments(tokenizer: Any) -> None:
    view = only(ready(ReferenceSolution(template_kwargs={"loud": True}), tokenizer), rollout())
    assert view is not None
    assert view.template_kwargs == {"loud": True}


def test_the_limit_counts_what_the_template_s_arguments_add(tokenizer: Any) -> None:
    marked = loud(tokenizer)
    whole = tokens(only(ready(ReferenceSolution(), marked), rollout()), marked)  # type: ignore[arg-type]
    kwargs = {"loud": True}
    for arguments, cut in (({}, False), (kwargs, True)):
        context = ReferenceSolution(max_prompt_tokens=whole, template_kwargs=arguments)
        view = only(ready(context, marked), rollout())
        assert view is not None
        assert bool(view.cut) == cut
        assert len(encode_prompt(marked, view.messages, arguments)) <= whole


def test_a_view_that_is_cut_to_nothing_is_none(tokenizer: Any) -> None:
    """What is left would be the bare question, under which the teacher is no teacher."""
    bare = tokens(only(ready(ReferenceSolution(), tokenizer), rollout("x")), tokenizer) - 1  # type: ignore[arg-type]
    assert only(ready(ReferenceSolution(max_prompt_tokens=bare), tokenizer), rollout("x")) is None
    one = only(ready(ReferenceSolution(max_prompt_tokens=bare + 1), tokenizer), rollout("x"))
    assert one is not None
    # With two fields it is enough that one of them is left.
    whole = tokens(only(ready(TwoHints(), tokenizer), rollout()), tokenizer)  # type: ignore[arg-type]
    second = len(tokenizer.encode("beta " * 20))
    view = only(ready(TwoHints(max_prompt_tokens=whole - second), tokenizer), rollout())
    assert view is not None
    assert view.cut == {"second": second}
