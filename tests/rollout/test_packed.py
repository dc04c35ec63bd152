"""Packed linear layers multiply as the layers themselves do, and leave nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_sd.functional import onednn
from lightning_sd.rollout import TransformersSampler, packed
from lightning_sd.rollout.packed import use_packed_linears

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN"
)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 300, bias=False), nn.Linear(300, 2))


def replaced(model: nn.Module) -> list[bool]:
    return ["forward" in vars(layer) for layer in model.modules()][1:]


@pytest.mark.parametrize("shape", [(256,), (5, 256), (4, 1, 256), (2, 70, 256), (0, 256)])
def test_products_equal_torchs_own(shape):
    model, x = layers(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.double()(x.double())
        model.float()
        with use_packed_linears(model, rows=5):
            # The third is too small to gain anything.
            assert replaced(model) == [True, True, False]
            found = model(x)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert replaced(model) == [False, False, False]


def test_a_bias_with_gaps_is_read_right():
    model, x = layers(), torch.ones(2, 256)
    model[0].bias = nn.Parameter(torch.randn(512, 2)[:, 0])
    with torch.no_grad():
        expected = model(x)
        with use_packed_linears(model, rows=2):
            torch.testing.assert_close(model(x), expected)


def test_what_does_not_fit_stays_as_it_is(monkeypatch):
    model = layers()
    with use_packed_linears(model, rows=1):  # gradients are wanted
        assert not any(replaced(model))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16), use_packed_linears(model, rows=1):
            assert not any(replaced(model))
        with use_packed_linears(model.double(), rows=1):
            assert not any(replaced(model))
        monkeypatch.setattr(packed, "MAX_BYTES", 1000)
        with use_packed_linears(model.float(), rows=1):
            assert not any(replaced(model))


def test_other_kernels_of_another_torch_are_not_used(monkeypatch):
    monkeypatch.setattr(onednn, "kernels_work", lambda: False)
    model = layers()
    with torch.no_grad(), use_packed_linears(model, rows=2):
        assert not any(replaced(model))


def test_a_layer_with_a_forward_of_its_own_keeps_it():
    model = layers()
    model[0].forward = lambda x: x[..., :1].expand(*x.shape[:-1], 512)
    with torch.no_grad(), use_packed_linears(model, rows=1):
        assert replaced(model) == [True, True, False]
        assert model[0](torch.ones(1, 256)).shape == (1, 512)
    assert replaced(model) == [True, False, False]


def test_an_error_inside_leaves_nothing_behind():
    model = layers()
    with pytest.raises(ZeroDivisionError), torch.no_grad(), use_packed_linears(model, rows=1):
        _ = 1 / 0
    assert not any(replaced(model))


def test_an_error_while_packing_leaves_nothing_behind(monkeypatch):
    model, first, known = layers(), [], packed._make_packed_forward

    def no_memory(layer, rows):
        if first:
            raise MemoryError
        first.append(layer)
        return known(layer, rows)

    monkeypatch.setattr(packed, "_make_packed_forward", no_memory)
    with pytest.raises(MemoryError), torch.no_grad(), use_packed_linears(model, rows=1):
        pass
    assert first
    assert not any(replaced(model))


def test_sampling_with_changed_weights_uses_them(make_llama, monkeypatch):
    """Nothing is kept from one rollout to the next: weights change in between."""
    monkeypatch.setattr(packed, "MIN_ELEMENTS", 1)
    model, sampler = make_llama(), TransformersSampler(max_new_tokens=6, temperature=0)

    def answers():
        kwargs = {"samples": 1, "stop_ids": [], "generator": torch.Generator()}
        return [c.ids for c in sampler.sample(model, [[5, 6, 7], [8, 9]], **kwargs)]

    first = answers()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight))
    second = answers()
    monkeypatch.setattr(packed, "MIN_ELEMENTS", 2**40)
    assert second == answers() != first
