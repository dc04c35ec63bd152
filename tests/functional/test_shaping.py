"""Bounds of EchoDistill's shaped rewards."""

from __future__ import annotations

import torch

from lightning_sd.functional.shaping import shaped_rewards


def test_shaped_rewards_stay_between_minus_one_and_two() -> None:
    rewards = torch.tensor([1.9, 3.0, 0.0, -0.5, -4.0])
    found = shaped_rewards(rewards, torch.ones(5), bonus=0.5)
    assert found.tolist() == [2.0, 2.0, 0.0, -0.5, -1.0]
