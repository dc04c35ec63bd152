"""RESD's weights of successes and failures, by hand."""

from __future__ import annotations

import pytest
import torch

from lightning_sd.objectives import Rebalance, StepState
from lightning_sd.objectives.inputs import ObjectiveInputs


def inputs(correct: list[bool], lengths: list[int] | None = None) -> ObjectiveInputs:
    number = len(correct)
    sizes = torch.tensor(lengths or [1] * number, dtype=torch.long)
    ones = torch.ones(number, dtype=torch.bool)
    rows = torch.arange(number).repeat_interleave(sizes)
    return ObjectiveInputs(
        rewards=torch.tensor(correct, dtype=torch.float32),
        groups=torch.arange(number),
        correct=torch.tensor(correct, dtype=torch.bool),
        finished=ones,
        lengths=sizes,
        by_student=ones,
        has_view=ones,
        ids=torch.zeros(len(rows), dtype=torch.long),
        rows=rows,
        positions=torch.zeros(len(rows), dtype=torch.long),
    )


def test_one_success_in_four_by_hand() -> None:
    """s = 1/4: successes weigh 3/4, failures 1/4, their mean is 3/8: 2 and 2/3."""
    found = Rebalance()(inputs([False, True, False, False]), StepState())
    torch.testing.assert_close(found, torch.tensor([2 / 3, 2, 2 / 3, 2 / 3]))


def test_powers_by_hand() -> None:
    """s = 1/4, a = 2, b = 1/2: 9/16 and 1/2, mean (9/16 + 3/2) / 4 = 33/64."""
    found = Rebalance(success=2.0, failure=0.5)(inputs([True, False, False, False]), StepState())
    expected = torch.tensor([9 / 16, 1 / 2, 1 / 2, 1 / 2]) * 64 / 33
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("right", range(9))
def test_mean_over_rollouts_is_one_and_the_rarer_kind_weighs_more(right: int) -> None:
    lengths = [1 + i % 3 for i in range(8)]
    correct = [i < right for i in range(8)]
    per_token = Rebalance()(inputs(correct, lengths), StepState())
    firsts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
    per_rollout = per_token[firsts]
    assert torch.equal(per_token, per_rollout.repeat_interleave(torch.tensor(lengths)))
    assert per_rollout.mean().item() == pytest.approx(1, abs=1e-6)
    assert (per_rollout > 0).all()
    if 0 < right < 8 and right != 4:
        assert (per_rollout[0] > per_rollout[-1]).item() == (right < 4)


def test_the_share_is_that_of_all_ranks() -> None:
    """Here one of two, over all ranks 2 of 8: s = 1/4 again."""
    found = Rebalance()(
        inputs([True, False]),
        StepState(sum_over_ranks=lambda counts: counts + torch.tensor([1, 5])),
    )
    torch.testing.assert_close(found, torch.tensor([2, 2 / 3]))


@pytest.mark.parametrize("correct", [[], [True], [False]])
def test_one_rollout_or_none(correct: list[bool]) -> None:
    assert Rebalance()(inputs(correct), StepState()).tolist() == [1.0] * len(correct)
