from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from lightning_sd.objectives import Distillation, PolicyGradient, SampledToken, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Scores
from tests.reference import policy as slow
from tests.reference.divergence import reduce, softmax

VOCAB = 5
LENGTHS = [3, 1, 2, 4, 0, 2]
GROUPS = [0, 0, 0, 1, 1, 2]
REWARDS = [1.0, 0.0, 0.25, 1.0, 0.0, 1.0]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sequence"},
    {"scale": "none"},
    {"clip_low": 0.1, "clip_high": 0.28, "temperature": 1.2},
    {"clip_low": 0.0, "clip_high": 0.0, "scale": "none", "reduction": "sequence"},
]


def policy_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    number = sum(LENGTHS)
    logits = torch.randn(number, VOCAB, generator=generator, dtype=torch.float64)
    ids = torch.randint(VOCAB, (number,), generator=generator)
    noise = 0.3 * torch.randn(number, generator=generator, dtype=torch.float64)
    old = logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1) + noise
    return logits.requires_grad_(), ids, old


@pytest.mark.parametrize("on_policy", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_policy_gradient_equals_the_slow_loop(options: dict[str, Any], on_policy: bool) -> None:
    objective = PolicyGradient(**options, chunk_tokens=4)
    logits, ids, old = policy_inputs()
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    per_rollout = objective.compute_advantages(rewards, torch.tensor(GROUPS))
    spread = per_rollout.repeat_interleave(torch.tensor(LENGTHS))
    tokens = TokenInputs(ids, None if on_policy else old, spread)
    output = compute_loss(objective, Scores(logits, None), None, tokens, LENGTHS)
    mean = output.total / output.count
    (gradient,) = torch.autograd.grad(mean, logits)

    advantages = slow.group_advantages(REWARDS, GROUPS, scale=objective.scale, eps=1e-4)
    rows, start = [], 0
    for row, length in enumerate(LENGTHS):
        rows.append(
            [
                slow.surrogate(
                    logits[i],
                    int(ids[i]),
                    old_logprob=None if on_policy else old[i].item(),
                    advantage=advantages[row],
                    clip_low=objective.clip_low,
                    clip_high=objective.clip_high,
                    temperature=objective.temperature,
                )
                for i in range(start, start + length)
            ]
        )
        start += length
    expected = reduce(rows, objective.reduction)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    assert mean.item() == pytest.approx(expected.item(), abs=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


def test_token_and_sequence_means_by_hand() -> None:
    """Two rollouts of 1 and 3 tokens with advantages 1 and -1: the ratio is 1 on policy."""
    logits = torch.zeros(4, VOCAB, requires_grad=True)
    tokens = TokenInputs(torch.zeros(4, dtype=torch.long), None, torch.tensor([1.0, -1, -1, -1]))
    by_token = compute_loss(PolicyGradient(), Scores(logits, None), None, tokens, [1, 3])
    assert (by_token.total / by_token.count).item() == pytest.approx(0.5)
    by_row = compute_loss(
        PolicyGradient(reduction="sequence"), Scores(logits, None), None, tokens, [1, 3]
    )
    assert (by_row.total / by_row.count).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("rewards", "groups"), [([1.0], [0]), ([1.0, 1.0, 0.0], [0, 0, 1])])
def test_no_contrast_gives_no_gradient(rewards: list[float], groups: list[int]) -> None:
    """A group of one, or with equal rewards, teaches nothing, and breaks nothing either."""
    objective = PolicyGradient()
    advantages = objective.compute_advantages(torch.tensor(rewards), torch.tensor(groups))
    logits = torch.randn(len(rewards), VOCAB, requires_grad=True)
    tokens = TokenInputs(torch.zeros(len(rewards), dtype=torch.long), None, advantages)
    output = compute_loss(objective, Scores(logits, None), None, tokens, [1] * len(rewards))
    output.total.backward()
    assert output.total == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_sampled_token_is_the_distillation_advantage() -> None:
    student = torch.randn(3, VOCAB, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, VOCAB, dtype=torch.float64)
    ids = torch.tensor([0, 3, 1])
    output = compute_loss(
        SampledToken(temperature=1.5, chunk_tokens=2),
        Scores(student, None),
        Scores(teacher, None),
        TokenInputs(ids),
        [1, 2],
    )
    (gradient,) = torch.autograd.grad(output.total, student)
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(3):
        own = softmax(student[i], 1.5)[int(ids[i])].log()
        advantage = softmax(teacher[i], 1.5)[int(ids[i])].log().item() - own.item()
        expected = expected - advantage * own
    (expected_gradient,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(output.total, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-12)


def test_only_policy_gradients_read_rewards_and_only_distillation_a_teacher() -> None:
    for objective in (Distillation(), SampledToken()):
        assert objective.inputs.teacher == "required"
        assert not objective.inputs.statistics
    assert PolicyGradient().inputs.teacher == "unused"


BAD = [
    (Distillation, {"reduction": "mean"}, "reduction='mean'"),
    (SampledToken, {"reduction": None}, "reduction=None"),
    (PolicyGradient, {"temperature": 0.0}, "temperature=0.0"),
    (Distillation, {"temperature": -1.0}, "temperature=-1.0"),
    (Distillation, {"temperature": math.nan}, "temperature=nan"),
    (Distillation, {"temperature": math.inf}, "temperature=inf"),
    (Distillation, {"chunk_tokens": 0}, "chunk_tokens=0"),
    (Distillation, {"kind": "jsd"}, "kind='jsd'"),
    (Distillation, {"kind": "js", "beta": 1.0}, "beta=1.0"),
    (Distillation, {"kind": "js", "beta": 7.0}, "beta=7.0"),
    (Distillation, {"top_k": 0}, "top_k=0"),
    (Distillation, {"top_k": 1, "tail": False}, "top_k=1"),
    (Distillation, {"support": "union"}, "support='union'"),
    (Distillation, {"element_clip": 0.0}, "element_clip=0.0"),
    (Distillation, {"token_clip": 0.0}, "token_clip=0.0"),
    (Distillation, {"token_clip": math.nan}, "token_clip=nan"),
    (Distillation, {"importance_clip": -2.0}, "importance_clip=-2.0"),
    (PolicyGradient, {"scale": "batch"}, "scale='batch'"),
    (PolicyGradient, {"clip_low": 1.0}, "clip_low=1.0"),
    (PolicyGradient, {"clip_low": -0.1}, "clip_low=-0.1"),
    (PolicyGradient, {"clip_high": -0.1}, "clip_high=-0.1"),
    (PolicyGradient, {"clip_high": math.nan}, "clip_high=nan"),
]


@pytest.mark.parametrize(("kind", "options", "words"), BAD, ids=lambda x: str(x))
def test_settings_out_of_range_are_named_at_once(kind: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        kind(**options)


def test_entropy_of_policy_gradients_is_summed_in_float32_under_autocast() -> None:
    logits = torch.randn(2, 20_000)
    tokens = TokenInputs(torch.tensor([0, 1]), advantages=torch.ones(2))
    exact = PolicyGradient().token_loss(logits, None, tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = PolicyGradient().token_loss(logits, None, tokens)
    torch.testing.assert_close(result.entropy, exact.entropy, rtol=1e-6, atol=0)
    torch.testing.assert_close(result.student_logprobs, exact.student_logprobs, rtol=1e-6, atol=0)
