"""oneDNN's products equal torch's own, and are used only where they do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_sd.functional import onednn
from lightning_sd.functional.linear import LogitsBuffer

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)
INPUTS = 48


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make tiles narrow, and return the columns of each product by oneDNN."""
    columns: list[int] = []
    multiply = onednn.multiply

    def record(x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> torch.Tensor:
        columns.append(len(weight))
        return multiply(x, weight, *rest)

    onednn.kernels_work()
    monkeypatch.setattr(onednn, "TILE", 32)
    monkeypatch.setattr(onednn, "multiply", record)
    return columns


@pytest.mark.parametrize("rows", [1, 5])
def test_tiles_equal_a_product_in_double(rows: int, tiles: list[int]) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(INPUTS, rows).T, torch.randn(70, 2 * INPUTS)[:, ::2]
    out = onednn.multiply_into(x, weight, torch.empty(rows, 70))
    torch.testing.assert_close(out.double(), x.double() @ weight.double().T, rtol=0, atol=1e-5)
    assert tiles == [32, 32, 6]


def test_logits_of_a_head_are_products_by_onednn(tiles: list[int]) -> None:
    weight, x = torch.randn(64, INPUTS), torch.randn(3, INPUTS)
    torch.testing.assert_close(LogitsBuffer(weight, None).logits(x), x @ weight.T)
    assert tiles == [32, 32]


@pytest.mark.parametrize(("rows", "dtype"), [(0, torch.float32), (3, torch.float64)])
def test_what_does_not_fit_is_multiplied_by_torch(
    rows: int, dtype: torch.dtype, tiles: list[int]
) -> None:
    x, weight = torch.randn(rows, INPUTS, dtype=dtype), torch.randn(64, INPUTS, dtype=dtype)
    out = onednn.multiply_into(x, weight, torch.empty(rows, 64, dtype=dtype))
    assert torch.equal(out, x @ weight.T)
    assert tiles == []


def add_one(x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    return x.new_ones(len(x), 48)


def refuse(*arguments: Any) -> None:
    raise RuntimeError("no such schema")


@pytest.mark.parametrize("changed", [add_one, refuse])
def test_other_kernels_of_another_torch_are_not_used(
    changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = SimpleNamespace(
        _reorder_linear_weight=lambda weight, rows: weight,
        _linear_pointwise=SimpleNamespace(default=changed),
    )
    monkeypatch.setattr(torch.ops, "mkldnn", kernels)
    onednn.kernels_work.cache_clear()
    with pytest.warns(UserWarning, match="other oneDNN kernels"):
        assert not onednn.is_supported(torch.ones(2, 2))
    onednn.kernels_work.cache_clear()


def test_this_torch_has_the_kernels() -> None:
    """Run with the oldest and the newest torch that pyproject.toml allows."""
    assert onednn.kernels_work(), torch.__version__
