"""The fused divergence against the plain one over whole logits, value and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_sd.functional import DivergenceSpec, divergence, fused_linear_divergence

VOCAB, WIDTH, TEACHER_WIDTH, SHAPE = 11, 5, 3, (2, 6)
SPECS = [
    DivergenceSpec(),
    DivergenceSpec("reverse_kl"),
    DivergenceSpec("js", beta=0.3),
    DivergenceSpec("js", top_k=4),
    DivergenceSpec(top_k=3, tail=False, support="teacher", element_clip=0.05),
]


def draw(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    given = {
        "hidden": normal(*SHAPE, WIDTH).requires_grad_(),
        "weight": normal(VOCAB, WIDTH).requires_grad_(),
        "bias": normal(VOCAB).requires_grad_(),
        "teacher_hidden": normal(*SHAPE, TEACHER_WIDTH).requires_grad_(),
        "teacher_weight": normal(VOCAB, TEACHER_WIDTH).requires_grad_(),
        "teacher_bias": normal(VOCAB),
    }
    labels = torch.randint(VOCAB, SHAPE, generator=generator)
    labels[0, :2] = labels[1, 5] = -100
    return {**given, "labels": labels}


def plain(given: dict[str, Tensor], spec: DivergenceSpec, temperature: float) -> Tensor:
    """One position at a time, ignored ones left out."""
    total, number = torch.zeros((), dtype=torch.float64), 0
    for row in range(SHAPE[0]):
        for t in range(SHAPE[1]):
            if given["labels"][row, t] == -100:
                continue
            own = given["weight"] @ given["hidden"][row, t] + given["bias"]
            other = given["teacher_weight"] @ given["teacher_hidden"][row, t]
            other = (other + given["teacher_bias"]).detach()
            id_ = given["labels"][row, t].reshape(1)
            found = divergence(own[None] / temperature, other[None] / temperature, id_, spec)
            total, number = total + found.value[0], number + 1
    return total / number


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("chunk", [None, 1, 4])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_value_and_gradients_equal_the_plain_loss(
    spec: DivergenceSpec, chunk: int | None, temperature: float
) -> None:
    given = draw()
    wanted = [given[name] for name in ("hidden", "weight", "bias")]
    actual = fused_linear_divergence(**given, kind=spec, temperature=temperature, chunk=chunk)
    gradients = torch.autograd.grad(3 * actual, wanted)
    expected = plain(given, spec, temperature)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    for found, slow in zip(gradients, torch.autograd.grad(3 * expected, wanted), strict=True):
        torch.testing.assert_close(found, slow, rtol=0, atol=1e-12)


def test_a_sum_is_the_mean_times_what_counts_and_another_index_may_be_ignored() -> None:
    given = draw()
    mean = fused_linear_divergence(**given)
    torch.testing.assert_close(fused_linear_divergence(**given, reduction="sum"), 9 * mean)
    labels = given.pop("labels")
    moved = torch.where(labels == -100, -1, labels)
    other = fused_linear_divergence(**given, labels=moved, ignore_index=-1)
    torch.testing.assert_close(other, mean)
    assert not torch.allclose(fused_linear_divergence(**given), mean)  # every position counts


def test_the_teacher_gets_no_gradient() -> None:
    given = draw()
    fused_linear_divergence(**given).backward()
    assert given["hidden"].grad is not None
    assert given["teacher_hidden"].grad is given["teacher_weight"].grad is None


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_that_counts_is_a_zero_with_a_graph(reduction: Any) -> None:
    given = draw()
    given["labels"] = torch.full(SHAPE, -100)
    loss = fused_linear_divergence(**given, reduction=reduction)
    loss.backward()
    assert loss.item() == 0
    for name in ("hidden", "weight", "bias"):
        assert given[name].grad is not None
        assert not given[name].grad.any()


def test_the_same_model_and_states_teach_nothing() -> None:
    given = draw()
    hidden, weight = given["hidden"], given["weight"]
    loss = fused_linear_divergence(hidden, weight, hidden, weight)
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, hidden)[0].any()


def test_bfloat16_is_summed_in_float32() -> None:
    given = draw(torch.bfloat16)
    loss = fused_linear_divergence(**given)
    assert loss.dtype == torch.float32
    wide = {n: t if n == "labels" else t.detach().double() for n, t in given.items()}
    assert loss.item() == pytest.approx(fused_linear_divergence(**wide).item(), rel=0.02)
    loss.backward()
    assert given["hidden"].grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": torch.zeros(3, dtype=torch.long)}, "leading dimensions"),
        ({"teacher_hidden": torch.zeros(2, 5, TEACHER_WIDTH)}, "select the same positions"),
        ({"teacher_weight": torch.zeros(7, TEACHER_WIDTH)}, "same vocabulary"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"reduction": "none"}, "reduction='none'"),
        ({"kind": "kl"}, "kind='kl'"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        fused_linear_divergence(**{**draw(), **change})
