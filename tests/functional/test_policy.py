from __future__ import annotations

import math

import pytest
import torch

from lightning_sd.functional import (
    DivergenceSpec,
    clipped_policy_loss,
    divergence,
    group_advantages,
    importance_weight,
    sampled_token_loss,
)
from tests.reference import policy as slow


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("scale", ["std", "none"])
def test_group_advantages_equal_the_slow_loop(scale: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(12, generator=generator, dtype=torch.float64)
    groups = torch.tensor([3, 3, 0, 7, 0, 3, 7, 7, 7, 1, 0, 3])
    result = group_advantages(rewards, groups, scale=scale, eps=1e-4)
    expected = slow.group_advantages(rewards.tolist(), groups.tolist(), scale=scale, eps=1e-4)
    torch.testing.assert_close(result, double(*expected), rtol=0, atol=1e-12)


def test_group_advantages_by_hand() -> None:
    """Rewards 1, 0, 0, 0: mean 1/4, sample variance (9/16 + 3/16) / 3 = 1/4."""
    result = group_advantages(double(1, 0, 0, 0), torch.zeros(4, dtype=torch.long), eps=0.1)
    torch.testing.assert_close(result, double(0.75, -0.25, -0.25, -0.25) / 0.6)
    plain = group_advantages(double(1, 0, 0, 0), torch.zeros(4, dtype=torch.long), scale="none")
    torch.testing.assert_close(plain, double(0.75, -0.25, -0.25, -0.25))


@pytest.mark.parametrize("scale", ["std", "none"])
def test_a_group_of_one_and_equal_rewards_have_no_advantage(scale: str) -> None:
    groups = torch.tensor([0, 1, 1, 2, 2, 2])
    rewards = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    assert (group_advantages(rewards, groups, scale=scale) == 0).all()
    tenths = group_advantages(torch.full((6,), 0.1), groups, scale=scale)
    assert tenths.abs().max() < 1e-3


def test_the_order_of_rollouts_is_theirs() -> None:
    rewards, groups = torch.rand(8), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    order = torch.randperm(8)
    expected = group_advantages(rewards, groups)[order]
    torch.testing.assert_close(group_advantages(rewards[order], groups[order]), expected)


CASES = [
    (old, advantage, low, high)
    for old in (None, -0.1, -0.9, -3.0)
    for advantage in (1.5, -1.5, 0.0)
    for low, high in ((0.2, 0.2), (0.2, 0.28))
]


@pytest.mark.parametrize(("old", "advantage", "low", "high"), CASES)
def test_clipped_surrogate_equals_the_slow_loop(
    old: float | None, advantage: float, low: float, high: float
) -> None:
    logits = torch.tensor([[0.3, -0.4, 0.1]], dtype=torch.float64, requires_grad=True)
    logprob = logits.log_softmax(-1)[:, 0]
    loss = clipped_policy_loss(
        logprob,
        logprob.detach() if old is None else double(old),
        double(advantage),
        clip_low=low,
        clip_high=high,
    )
    expected = slow.surrogate(
        logits[0], 0, old_logprob=old, advantage=advantage, clip_low=low, clip_high=high
    )
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


def test_on_policy_the_surrogate_is_the_policy_gradient() -> None:
    logprob = double(-0.7, -1.2).requires_grad_()
    advantage = double(2.0, -3.0)
    clipped_policy_loss(logprob, logprob.detach(), advantage).sum().backward()
    torch.testing.assert_close(logprob.grad, -advantage)


def test_published_vector_v5() -> None:
    loss = sampled_token_loss(double(0.9, 0.7).log(), double(0.6, 0.2).log())
    expected = double(-0.04272001287153249, -0.44682916155660535)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)


def test_published_vector_v6() -> None:
    weight = importance_weight(double(0.4, 0.3).log(), double(0.1, 0.2).log(), clip=2.0)
    torch.testing.assert_close(double(1, 2) * weight, double(2, 3), rtol=0, atol=1e-12)


def test_importance_weights_carry_no_gradient_and_stay_finite() -> None:
    logprobs = double(-1e6, -0.5, -3.0).requires_grad_()
    weight = importance_weight(logprobs, double(-1.0, -1e6, -3.0), clip=2.0)
    assert not weight.requires_grad
    assert weight[0] == pytest.approx(math.exp(-20))
    assert weight[1:].tolist() == [2.0, 1.0]


def test_sampled_tokens_estimate_the_gradient_of_reverse_kl() -> None:
    """In expectation over the student's own samples, and only the gradient: not the value."""
    student = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 6, dtype=torch.float64)
    expectation = torch.zeros(1, 6, dtype=torch.float64)
    for token in range(6):
        logs = student.log_softmax(-1)
        loss = sampled_token_loss(logs[:, token], teacher.log_softmax(-1)[:, token])
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        expectation += logs[0, token].exp().detach() * gradient
    value = divergence(student, teacher, torch.tensor([0]), DivergenceSpec("reverse_kl")).value
    (expected,) = torch.autograd.grad(value.sum(), student)
    torch.testing.assert_close(expectation, expected, rtol=0, atol=1e-12)
