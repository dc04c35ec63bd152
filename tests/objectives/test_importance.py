"""The behavior policy (the sampler) and the old policy (of the ratio of PPO) are two things."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.functional.logprobs import token_logprobs
from lightning_sd.objectives import (
    Distillation,
    Mixture,
    Objective,
    PolicyGradient,
    RoutedPolicy,
    SampledToken,
)
from lightning_sd.objectives.inputs import ObjectiveInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Head, Scores
from tests.reference.divergence import Settings, softmax, token_loss
from tests.reference.inputs import STATE, make_inputs, slow_mean
from tests.reference.policy import group_advantages, surrogate

LENGTHS, VOCAB = [4, 0, 2, 5, 1, 3], 6
GROUPS, REWARDS = [0, 0, 0, 1, 1, 1], [1.0, 0.0, 0.25, 0.0, 1.0, 1.0]
ROWS = [row for row, length in enumerate(LENGTHS) for _ in range(length)]
NUMBER = sum(LENGTHS)
HEADS = [None, Head(torch.eye(VOCAB, dtype=torch.float64))]


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Logits of both models, ids, and the old and the behavior policy's log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(2, NUMBER, VOCAB, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCAB, (NUMBER,), generator=generator)
    noise = 0.6 * torch.randn(2, NUMBER, generator=generator, dtype=torch.float64)
    own = logits[0].log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1)
    behavior = own + noise[1]
    behavior[LENGTHS[0] + 1] = torch.nan  # a token of which the sampler said nothing
    return logits[0].requires_grad_(), logits[1], ids, own + noise[0], behavior


def make(seed: int, *, off_policy: bool) -> tuple[ObjectiveInputs, Tensor, Tensor]:
    student, teacher, ids, old, behavior = draw(seed)
    inputs = make_inputs(
        LENGTHS,
        ids=ids,
        groups=torch.tensor(GROUPS),
        rewards=torch.tensor(REWARDS, dtype=torch.float64),
        student_logprobs=token_logprobs(student.detach(), ids),
        teacher_entropy=torch.zeros(NUMBER, dtype=torch.float64),
        old_logprobs=old if off_policy else None,
        behavior_logprobs=behavior,
    )
    return inputs, student, teacher


def slow_weights(inputs: ObjectiveInputs, student: Tensor, level: str, clip: float) -> list[float]:
    """min(p_old / p_behavior, clip) of each token, or the product over its completion."""
    assert inputs.behavior_logprobs is not None
    ratios = []
    for i in range(NUMBER):
        start = softmax(student[i].detach(), 1.0)[int(inputs.ids[i])].log().item()
        if inputs.old_logprobs is not None:
            start = inputs.old_logprobs[i].item()
        behavior = inputs.behavior_logprobs[i].item()
        ratios.append(1.0 if math.isnan(behavior) else math.exp(start - behavior))
    if level == "sequence":
        ratios = [
            math.prod(r for r, other in zip(ratios, ROWS, strict=True) if other == row)
            for row in ROWS
        ]
    return [min(ratio, clip) for ratio in ratios]


def slow_policy(inputs: ObjectiveInputs, student: Tensor) -> list[Tensor]:
    advantages = group_advantages(REWARDS, GROUPS, scale="std", eps=1e-4)
    return [
        surrogate(
            student[i],
            int(inputs.ids[i]),
            old_logprob=None if inputs.old_logprobs is None else inputs.old_logprobs[i].item(),
            advantage=advantages[ROWS[i]],
            clip_low=0.2,
            clip_high=0.2,
        )
        for i in range(NUMBER)
    ]


def slow_divergence(inputs: ObjectiveInputs, student: Tensor, teacher: Tensor) -> list[Tensor]:
    chosen = Settings(kind="reverse_kl")
    return [
        token_loss(student[i], teacher[i], chosen, token=int(inputs.ids[i])) for i in range(NUMBER)
    ]


def slow_sampled(inputs: ObjectiveInputs, student: Tensor, teacher: Tensor) -> list[Tensor]:
    losses = []
    for i in range(NUMBER):
        own = softmax(student[i], 1.0)[int(inputs.ids[i])].log()
        other = softmax(teacher[i], 1.0)[int(inputs.ids[i])].log()
        losses.append(-(other - own).item() * own)
    return losses


def check(
    objective: Objective,
    expected: list[Tensor],
    inputs: ObjectiveInputs,
    student: Tensor,
    teacher: Tensor,
    head: Head | None,
) -> None:
    tokens = objective.apply_token_weights(inputs, STATE)
    other = Scores(teacher, head) if objective.inputs.uses_teacher else None
    output = compute_loss(objective, Scores(student, head), other, tokens, LENGTHS)
    actual, wanted = output.total / output.count, slow_mean(expected, LENGTHS)
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(actual, student)
    (slow_gradient,) = torch.autograd.grad(wanted, student)
    assert slow_gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient, slow_gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", HEADS, ids=["logits", "head"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("seed", range(4))
class TestAgainstTheSlowLoop:
    @pytest.mark.parametrize("off_policy", [False, True])
    def test_policy_gradient(self, head: Any, level: Any, seed: int, off_policy: bool) -> None:
        inputs, student, teacher = make(seed, off_policy=off_policy)
        weights = slow_weights(inputs, student, level, 1.5)
        expected = [w * loss for w, loss in zip(weights, slow_policy(inputs, student), strict=True)]
        objective = PolicyGradient(importance_clip=1.5, importance=level)
        check(objective, expected, inputs, student, teacher, head)

    def test_distillation(self, head: Any, level: Any, seed: int) -> None:
        inputs, student, teacher = make(seed, off_policy=False)
        weights = slow_weights(inputs, student, level, 1.5)
        losses = slow_divergence(inputs, student, teacher)
        expected = [w * loss for w, loss in zip(weights, losses, strict=True)]
        objective = Distillation(kind="reverse_kl", importance_clip=1.5, importance=level)
        check(objective, expected, inputs, student, teacher, head)

    def test_sampled_token(self, head: Any, level: Any, seed: int) -> None:
        inputs, student, teacher = make(seed, off_policy=False)
        weights = slow_weights(inputs, student, level, 1.5)
        losses = slow_sampled(inputs, student, teacher)
        expected = [w * loss for w, loss in zip(weights, losses, strict=True)]
        objective = SampledToken(importance_clip=1.5, importance=level)
        check(objective, expected, inputs, student, teacher, head)

    def test_terms_of_a_mixture_have_weights_of_their_own(
        self, head: Any, level: Any, seed: int
    ) -> None:
        inputs, student, teacher = make(seed, off_policy=False)
        first = slow_weights(inputs, student, level, 1.5)
        second = slow_weights(inputs, student, "token", 0.8)
        parts = (slow_policy(inputs, student), slow_divergence(inputs, student, teacher))
        plain = slow_sampled(inputs, student, teacher)
        expected = [
            0.5 * a * x + 0.25 * b * y + 0.125 * z
            for a, x, b, y, z in zip(first, parts[0], second, parts[1], plain, strict=True)
        ]
        terms = [
            PolicyGradient(importance_clip=1.5, importance=level),
            Distillation(kind="reverse_kl", importance_clip=0.8),
            SampledToken(),
        ]
        objective = Mixture(terms=terms, coefficients=[0.5, 0.25, 0.125])
        check(objective, expected, inputs, student, teacher, head)


def test_by_default_the_loss_reads_both_policies() -> None:
    """Objectives of the user's own that do not override ``make_token_inputs``."""
    inputs, _, _ = make(0, off_policy=True)
    tokens = Objective.make_token_inputs(Distillation(), inputs, STATE)
    assert tokens.old_logprobs is inputs.old_logprobs
    assert tokens.behavior_logprobs is inputs.behavior_logprobs


def test_trained_once_the_gradient_is_a_times_the_clipped_weight() -> None:
    """SDPO, eq. 12. With one policy in both places it would be A r min(r, 2)."""
    advantage, behavior = 1.0, math.log(0.2)
    for p, weight in ((0.5, 2.0), (0.3, 1.5), (0.1, 0.5)):
        own = torch.tensor([math.log(p)], dtype=torch.float64, requires_grad=True)
        tokens = PolicyGradient().make_token_inputs(make_inputs([1]), STATE)
        tokens = replace(
            tokens,
            advantages=torch.tensor([advantage], dtype=torch.float64),
            behavior_logprobs=torch.tensor([behavior], dtype=torch.float64),
        )
        loss = PolicyGradient(importance_clip=2.0).logprob_loss(own, None, tokens)
        loss.sum().backward()
        assert own.grad is not None
        assert own.grad.item() == pytest.approx(-advantage * weight, abs=1e-12)


def test_the_kl_term_is_not_weighted() -> None:
    own = torch.tensor([-1.0], dtype=torch.float64)
    tokens = replace(
        PolicyGradient().make_token_inputs(make_inputs([1]), STATE),
        advantages=torch.zeros(1, dtype=torch.float64),
        behavior_logprobs=own - 1,
    )
    objective = PolicyGradient(kl=0.5, importance_clip=2.0)
    loss = objective.logprob_loss(own, own - 0.3, tokens)
    assert loss.item() == pytest.approx(0.5 * (math.exp(-0.3) - 1 + 0.3), abs=1e-12)


@pytest.mark.parametrize("kind", [PolicyGradient, Distillation, SampledToken])
def test_statistics_are_declared_only_where_they_are_read(kind: Any) -> None:
    token = {"behavior_logprobs"}
    assert kind().inputs.statistics & {*token, "student_logprobs"} == frozenset()
    assert kind(importance_clip=2.0).inputs.statistics == token
    whole = kind(importance_clip=2.0, importance="sequence").inputs.statistics
    assert whole == {*token, "student_logprobs"}
    mixture = RoutedPolicy(
        terms=[PolicyGradient(), Distillation(importance_clip=2.0)], coefficients=[1, 1]
    )
    assert token < mixture.inputs.statistics


@pytest.mark.parametrize("kind", [PolicyGradient, Distillation, SampledToken])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"importance_clip": 0.0}, "importance_clip=0.0"),
        ({"importance_clip": 2.0, "importance": "row"}, "importance='row'"),
        ({"importance": "sequence"}, "without importance_clip"),
    ],
)
def test_settings_that_cannot_work_are_named(kind: Any, settings: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        kind(**settings)
