"""What reaches the teacher when rollouts are scored, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_sd import FrozenTeacher, LiveTeacher
from lightning_sd.modules.rollout_scorer import RolloutScorer
from lightning_sd.objectives import InputSpec
from lightning_sd.scoring import Scorer
from lightning_sd.teachers import score_both
from lightning_sd.types import Question, Rollout, TeacherView

TURN = ({"role": "user", "content": "7+5?"},)
QUESTION = Question("q", "7+5?", TURN)
ROLLOUTS = [Rollout(QUESTION, (5, 6, 7), "", 0), Rollout(QUESTION, (8, 9), "", 0)]
HINT, WRONG = ({"role": "user", "content": "12"},), ({"role": "user", "content": "11"},)
VIEWS = [TeacherView(HINT, contrasts=(WRONG,), template_kwargs={"loud": True}), None]


def make(model: Any, teacher: Any, asked: list[Any]) -> RolloutScorer:
    def encode(messages: Any, template_kwargs: Any) -> list[int]:
        asked.append((messages[0]["content"], template_kwargs))
        return [20 if template_kwargs else 21, len(messages[0]["content"]) + 30]

    teacher.setup(model)
    return RolloutScorer(model, teacher, Scorer(model), encode)


def test_every_view_is_encoded_with_its_own_template_arguments(make_llama: Any) -> None:
    asked: list[Any] = []
    scorer = make(make_llama(), LiveTeacher(), asked)
    spec = InputSpec(teacher="optional").add("contrast_logprobs")
    scorer.score(ROLLOUTS, VIEWS, spec)
    assert asked == [
        ("12", {"loud": True}),
        ("11", {"loud": True}),
        ("7+5?", None),  # once for both rollouts
    ]
    asked.clear()
    scorer.compute_advantages(ROLLOUTS, VIEWS)
    assert sorted(asked, key=str) == [("12", {"loud": True}), ("7+5?", None)]


@pytest.mark.parametrize("kind", [FrozenTeacher, LiveTeacher])
def test_no_graph_is_built_for_the_teacher(make_llama: Any, kind: Any) -> None:
    scorer = make(make_llama(), kind(), [])
    scored = scorer.score(ROLLOUTS, VIEWS, InputSpec(teacher="optional").add("contrast_logprobs"))
    assert scored.student is not None
    assert scored.student.hidden.requires_grad
    for other in (scored.teacher, *scored.contrasts):
        assert other is not None
        assert not other.hidden.requires_grad  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [FrozenTeacher, LiveTeacher])
def test_no_graph_is_built_for_advantages(make_llama: Any, kind: Any) -> None:
    model, teacher = make_llama(), kind()
    teacher.setup(model)
    both = score_both(teacher, model, Scorer(model), [[5, 6]], [[7]], [[8, 9]])
    assert not any(scores.hidden.requires_grad for scores in both)  # type: ignore[union-attr]


def test_a_rollout_without_a_view_is_scored_by_the_student_alone(make_llama: Any) -> None:
    scorer = make(make_llama(), LiveTeacher(), [])
    scored = scorer.score(ROLLOUTS[::-1], VIEWS[::-1], InputSpec(teacher="optional"))
    assert list(scored.active) == [0, 1]
    hidden = scored.teacher.hidden  # type: ignore[union-attr]
    assert not hidden[:2].any()
    assert hidden[2:].any(-1).all()
    assert torch.isfinite(scored.student.hidden).all()  # type: ignore[union-attr]
