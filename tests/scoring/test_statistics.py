"""Divergences of token scores against the formula."""

from __future__ import annotations

import pytest
import torch

from lightning_sd.functional.divergence_spec import DivergenceSpec
from lightning_sd.scoring import Scores
from lightning_sd.scoring.statistics import compute_divergence


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("kind", ["forward_kl", "reverse_kl"])
def test_both_logits_are_divided_by_the_temperature(kind: str, temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 11, generator=generator, dtype=torch.float64)
    logs, logt = ((x / temperature).log_softmax(-1) for x in (student, teacher))
    first, second = (logt, logs) if kind == "forward_kl" else (logs, logt)
    expected = (first.exp() * (first - second)).sum(-1)
    scores = (Scores(logits.clone(), None) for logits in (student, teacher))
    found = compute_divergence(*scores, torch.arange(5), temperature, DivergenceSpec(kind=kind))
    torch.testing.assert_close(found, expected)
