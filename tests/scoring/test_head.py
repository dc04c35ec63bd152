"""A factor of the logits that no configuration names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lightning_sd.scoring.head import find_scaling


@pytest.mark.parametrize("factor", [0.37, 1.0, 2.5])
def test_a_factor_that_no_configuration_names_is_measured(factor: float) -> None:
    outputs = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    scaling = find_scaling(outputs, factor * outputs, SimpleNamespace(vocab_size=40))
    assert scaling is not None
    assert scaling.scale == pytest.approx(factor, rel=1e-6)
    assert scaling.softcap is None


def test_logits_that_no_factor_gives_are_refused() -> None:
    outputs = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    assert find_scaling(outputs, outputs**3, SimpleNamespace()) is None
