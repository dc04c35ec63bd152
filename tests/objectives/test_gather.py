"""Statistics are those of the rollouts that take part, and 0 or NaN where nothing was scored."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.objectives import Distillation, Mixture, PolicyGradient, SampledToken
from lightning_sd.objectives.gather import gather_inputs
from lightning_sd.objectives.inputs import StepState
from lightning_sd.objectives.scored import ScoredRollouts
from lightning_sd.objectives.spec import InputSpec
from lightning_sd.scoring import Scores
from lightning_sd.types import Question, Rollout, TeacherView, Verdict

TURN = ({"role": "user", "content": "?"},)
QUESTION, VOCAB = Question("q", "?", TURN), 7
CPU = torch.device("cpu")
IDS = [(1, 2), (3,), (4, 5, 6), (2, 1)]
LOGPROBS = [(-1.0, -2.0), (-3.0,), None, (-4.0, -5.0)]
ROLLOUTS = [
    Rollout(QUESTION, ids, "", group=0, logprobs=logprobs)
    for ids, logprobs in zip(IDS, LOGPROBS, strict=True)
]
VIEW = TeacherView(TURN, contrasts=(TURN, TURN))


class Reads(PolicyGradient):
    """Reads everything."""

    @property
    def inputs(self) -> InputSpec:
        names = ("behavior_logprobs", "teacher_logprobs", "teacher_entropy", "contrast_logprobs")
        return InputSpec("optional", True).add(*names, "student_logprobs", "forward_kl")


def scored(active: list[int], views: list[TeacherView | None], **given: Any) -> ScoredRollouts:
    number = sum(len(IDS[i]) for i in active)
    generator = torch.Generator().manual_seed(0)

    def draw() -> Scores:
        return Scores(torch.randn(number, VOCAB, generator=generator), None)

    return ScoredRollouts(ROLLOUTS, views, active, draw(), draw(), [draw(), draw()], **given)


def test_the_samplers_report_follows_the_rollouts_that_take_part() -> None:
    inputs = gather_inputs(Reads(), scored([1, 2, 3], [None, VIEW, VIEW, VIEW]), CPU)
    assert inputs.ids.tolist() == [3, 4, 5, 6, 2, 1]
    assert inputs.behavior_logprobs is not None
    assert inputs.behavior_logprobs[[0, 4, 5]].tolist() == [-3.0, -4.0, -5.0]
    assert inputs.behavior_logprobs[1:4].isnan().all()  # this text came without


def test_what_the_teacher_did_not_see_has_statistics_of_zero() -> None:
    inputs = gather_inputs(Reads(), scored([0, 1, 2, 3], [VIEW, None, VIEW, None]), CPU)
    unseen = torch.tensor([False, False, True, False, False, False, True, True])
    for values in (inputs.teacher_logprobs, inputs.teacher_entropy, inputs.forward_kl):
        assert values is not None
        assert not values[unseen].any()
        assert (values[~unseen] != 0).all()
    assert inputs.student_logprobs is not None
    assert (inputs.student_logprobs != 0).all()
    assert inputs.has_view.tolist() == [True, False, True, False]


def test_a_missing_contrast_is_nan_and_no_probability() -> None:
    views = [VIEW, TeacherView(TURN, contrasts=(TURN,)), None, TeacherView(TURN)]
    inputs = gather_inputs(Reads(), scored([0, 1, 2, 3], views), CPU)
    assert inputs.contrast_logprobs is not None
    missing = inputs.contrast_logprobs.isnan().tolist()
    rows = [[False, False], [False, True], [True, True], [True, True]]
    assert missing == [row for row, ids in zip(rows, IDS, strict=True) for _ in ids]


def inputs_of(origins: str, rewards: list[float]) -> Any:
    rollouts = [
        Rollout(
            QUESTION,
            (1, 2),
            "",
            group=0,
            verdict=Verdict(reward, reward > 0.5),
            origin="student" if origin == "s" else "teacher",
        )
        for origin, reward in zip(origins, rewards, strict=True)
    ]
    views: list[TeacherView | None] = [VIEW] * len(rollouts)
    student = Scores(torch.zeros(2 * len(rollouts), VOCAB), None)
    return gather_inputs(
        PolicyGradient(),
        ScoredRollouts(rollouts, views, range(len(rollouts)), student),
        CPU,
    )


def test_a_teachers_text_is_no_sibling() -> None:
    objective = PolicyGradient(scale="none")
    inputs = inputs_of("sst", [1.0, 0.0, 0.9])
    tokens = objective.make_token_inputs(inputs, StepState())
    assert tokens.advantages is not None
    assert tokens.advantages.tolist() == [0.5, 0.5, -0.5, -0.5, 0.0, 0.0]
    assert inputs.average_over_groups(inputs.correct).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("term", [Distillation(), SampledToken()])
def test_a_term_with_a_teacher_has_no_share_of_rollouts_without_a_view(term: Any) -> None:
    mixture = Mixture(terms=[PolicyGradient(), term], coefficients=[0.5, 0.25])
    inputs = gather_inputs(mixture, scored([0, 1, 2, 3], [VIEW, None, VIEW, None]), CPU)
    tokens = mixture.make_token_inputs(inputs, StepState())
    assert tokens.shares is not None
    shares: Tensor = tokens.shares
    assert shares[:, 0].tolist() == [0.5] * 8
    assert shares[:, 1].tolist() == [0.25, 0.25, 0.0, 0.25, 0.25, 0.25, 0.0, 0.0]
    assert math.isclose(float(shares.sum()), 4 + 5 * 0.25)
