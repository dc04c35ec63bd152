"""Metrics updated by tensors equal those updated by rollouts."""

from __future__ import annotations

import pytest
import torch

from lightning_sd.metrics import (
    AvgAtK,
    MajAtK,
    MeanLength,
    MeanReward,
    PassAtK,
    StyleShare,
    build_advantage_metrics,
)
from lightning_sd.metrics.measures import measure_rollout, measure_tokens
from lightning_sd.metrics.spans import Pieces
from lightning_sd.metrics.wrong_steps import Steps
from tests.metrics.test_answers import CASES, group


@pytest.mark.parametrize("letters", [case[0] for case in CASES])
@pytest.mark.parametrize("kind", [AvgAtK, PassAtK, MajAtK, MeanReward, MeanLength])
def test_answers_as_tensors(kind, letters):
    rollouts = group(letters)
    read = {
        MeanReward: [r.verdict.reward for r in rollouts],
        MeanLength: [len(r.ids) for r in rollouts],
    }.get(kind, [r.verdict.correct for r in rollouts])
    numbers = [[-1 if letter == "-" else ord(letter) for letter in letters]]
    texts = [[r.verdict.answer for r in rollouts]]
    expected = kind()
    expected.update(rollouts)
    for answers in (torch.tensor(numbers), texts):
        metric = kind()
        metric.update(torch.tensor([read]), answers)
        torch.testing.assert_close(metric.compute(), expected.compute())


def test_a_batch_is_as_many_questions():
    metric = PassAtK()
    metric.update(torch.tensor([[0, 1], [0, 0], [1, 1]]))
    metric.update(torch.tensor([[0.0]]))
    assert metric.compute() == 0.5


@pytest.mark.parametrize("shape", [(3,), (0, 2), (1, 2, 3)])
def test_shapes_are_checked(shape):
    with pytest.raises(ValueError, match=r"give \[questions, k\]"):
        AvgAtK().update(torch.zeros(shape))


def test_majority_needs_answers():
    with pytest.raises(ValueError, match="answers: Maj@k needs"):
        MajAtK().update(torch.ones(1, 2))
    with pytest.raises(ValueError, match="answers: Maj@k needs"):
        MajAtK().update(torch.ones(1, 2), torch.ones(1, 3))


# Tokens of two steps with text between, and padding at the end of the first row.
STEPS = torch.tensor([[0, 1, 1, 0, 2, 2, -1, -1], [1, 1, 1, 2, 2, 3, 3, 0]])
WRONG = STEPS == 2
STYLE = torch.tensor([[1, 0, 0, 1, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0]]).bool()


def test_advantages_as_tensors():
    advantages = torch.randn(STEPS.shape, generator=torch.Generator().manual_seed(0)).double()
    rows = measure_tokens(advantages, STEPS, WRONG, STYLE)
    spans = [((1, 3), (4, 6)), ((0, 3), (3, 5), (5, 7))]
    for row, (found, length) in enumerate(zip(rows, (6, 8), strict=True)):
        letters = Pieces(
            ("x",) * length, tuple((i, i + 1) for i in range(length)), (None,) * length
        )
        steps = Steps(letters, spans[row], (2,), None)
        by_hand = measure_rollout(advantages[row, :length].tolist(), steps)
        for name in by_hand.keys() - {"style_share", "task_abs"}:
            assert found[name] == pytest.approx(by_hand[name]), name
        mass = advantages[row, :length].abs()
        share = mass[STYLE[row, :length]].sum() / mass.sum()
        assert found["style_share"].total / found["style_share"].number == pytest.approx(share)


def test_each_metric_takes_them():
    advantages = torch.tensor([[0.0, -1, 0, 0, -1, -2, 9, 9], [0, 0, 0, -1, -1, 0, 0, 0]])
    metrics = build_advantage_metrics()
    metrics.update(advantages, STEPS, WRONG, STYLE)
    found = metrics.compute()
    assert found["negative_mass"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["negative_mass_chance"] == pytest.approx((2 / 6 + 5 / 8) / 2)
    assert found["step_auroc"] == 1
    assert found["style_share"] == 0


def test_padding_and_completions_without_errors_do_not_count():
    metric = StyleShare()
    metric.update(torch.ones(1, 3), torch.full((1, 3), -1), torch.zeros(1, 3).bool())
    assert metric.compute().isnan()
    assert measure_tokens(torch.ones(1, 2), torch.ones(1, 2).long(), torch.zeros(1, 2).bool()) == [
        {}
    ]


def test_tensors_are_checked():
    with pytest.raises(ValueError, match="steps or wrong is missing"):
        StyleShare().update(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"give \[batch, tokens\]"):
        measure_tokens(torch.ones(1, 3), torch.ones(1, 2), torch.ones(1, 3).bool())
