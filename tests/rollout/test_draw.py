"""Drawing by inversion, against the inverted whole cumulative distribution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.rollout.draw import BLOCK, draw


def by_hand(weights: Tensor, seed: int) -> list[int]:
    """One uniform number a row and the whole running sum."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(len(weights), 1, generator=generator, dtype=weights.dtype)
    sums = weights.cumsum(-1)
    return torch.searchsorted(sums, uniform * sums[:, -1:], right=True).squeeze(1).tolist()


@pytest.mark.parametrize("vocab", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK, 5 * BLOCK - 3])
def test_the_blocks_change_no_draw(vocab: int) -> None:
    weights = (3 * torch.randn(500, vocab, dtype=torch.float64)).exp()
    weights /= weights.amax(-1, keepdim=True)
    weights[:, 1::3] = 0
    found = draw(weights, torch.Generator().manual_seed(5)).tolist()
    assert found == by_hand(weights, 5)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize(
    "logits",
    [
        [-math.inf, 0.0, -math.inf],
        [-math.inf, -math.inf, 0.0],
        [0.0, -math.inf, -math.inf],
        [-math.inf, 0.0, -math.inf, 0.0, -math.inf],
        [0.0, -200.0, -200.0],
        [0.0, *[-20.0] * 500, *[-math.inf] * 500],
        [*[-math.inf] * 300, 0.0, *[-math.inf] * 300],
        [*[-100.0] * 300, *[0.1 * i for i in range(-300, 1)], *[-math.inf] * 3],
    ],
)
def test_a_token_without_probability_is_never_drawn(
    logits: list[float], uniform: float, monkeypatch: Any
) -> None:
    """Even at the ends of what a generator gives, where a rounded sum may fall short."""
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.full(size, uniform))
    weights = torch.tensor([logits, logits]).exp()
    found = draw(weights, torch.Generator())
    assert (weights.gather(-1, found[:, None]) > 0).all()


def test_every_token_of_a_large_vocabulary_is_reached() -> None:
    """Where blocks meet, and in the last one, which is not full."""
    vocab = 3 * BLOCK + 5
    found = draw(torch.ones(200_000, vocab), torch.Generator().manual_seed(0)).bincount()
    expected = 200_000 / vocab
    assert len(found) == vocab
    statistic = ((found - expected) ** 2 / expected).sum().item()
    # Chi-square of vocab - 1 degrees of freedom, six standard deviations wide.
    assert abs(statistic - (vocab - 1)) < 6 * math.sqrt(2 * vocab)
