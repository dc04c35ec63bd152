from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_sd.functional.chunked import chunked_loss
from lightning_sd.objectives import Distillation, PolicyGradient, SampledToken, TokenInputs
from lightning_sd.scoring import Head

TOKENS, HIDDEN, VOCAB = 11, 5, 7
ATOL = 1e-10


def parts(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "hidden": normal(TOKENS, HIDDEN).requires_grad_(),
        "weight": normal(VOCAB, HIDDEN).requires_grad_(),
        "bias": normal(VOCAB).requires_grad_(),
        "teacher": normal(TOKENS, VOCAB),
    }


def loss_of(objective: Any, teacher: Tensor) -> Callable[[Tensor, slice], tuple[Tensor, Tensor]]:
    ids = torch.arange(TOKENS) % VOCAB
    advantages = torch.linspace(-1, 1, TOKENS, dtype=torch.float64)

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        tokens = TokenInputs(ids, advantages=advantages).select(part)
        result = objective.token_loss(logits, teacher[part], tokens)
        return result.loss.sum(), result.loss.detach().unsqueeze(-1)

    return loss


OBJECTIVES = [
    Distillation(),
    Distillation(kind="js", top_k=3, token_clip=0.8),
    SampledToken(),
    PolicyGradient(),
]


@pytest.mark.parametrize("chunk", [1, 2, 4, 10, 11, 1000])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.25, None), (1.0, 2.0), (3.0, 5.0)])
def test_equals_the_whole_loss_for_any_chunk(
    objective: Any, chunk: int, scale: float, softcap: float | None
) -> None:
    x = parts()
    wanted = [x["hidden"], x["weight"], x["bias"]]
    head = Head(x["weight"], x["bias"], scale, softcap)
    loss = loss_of(objective, x["teacher"])
    total, kept = chunked_loss(x["hidden"], head, head.list_trainable(), loss, chunk=chunk)
    gradients = torch.autograd.grad(3 * total, wanted)

    logits = scale * (x["hidden"] @ x["weight"].T + x["bias"])
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    expected, expected_kept = loss(logits, slice(None))
    expected_gradients = torch.autograd.grad(3 * expected, wanted)
    torch.testing.assert_close(total, expected, rtol=0, atol=ATOL)
    torch.testing.assert_close(kept, expected_kept, rtol=0, atol=ATOL)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=ATOL)


def test_passes_gradcheck() -> None:
    x = parts()
    loss = loss_of(Distillation(kind="js"), x["teacher"])

    def run(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        head = Head(weight, bias, softcap=3.0)
        return chunked_loss(hidden, head, [weight, bias], loss, chunk=2)[0]

    few = [x["hidden"][:5], x["weight"], x["bias"]]
    few = [tensor.detach().requires_grad_() for tensor in few]
    assert torch.autograd.gradcheck(run, few, eps=1e-7, fast_mode=True)


def test_a_tied_head_adds_to_the_embedding_s_gradient() -> None:
    embedding = nn.Embedding(VOCAB, HIDDEN, dtype=torch.float64)
    ids, teacher = torch.arange(TOKENS) % VOCAB, parts()["teacher"]
    loss = loss_of(Distillation(), teacher)
    weight = embedding.weight

    total, _ = chunked_loss(embedding(ids).tanh(), Head(weight), [weight], loss, chunk=3)
    (gradient,) = torch.autograd.grad(total, weight)
    expected, _ = loss(embedding(ids).tanh() @ weight.T, slice(None))
    (expected_gradient,) = torch.autograd.grad(expected, weight)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=ATOL)


class CountingHead:
    """A head that records how many rows of logits it was asked for, and what is still alive."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.rows: list[int] = []

    def __call__(self, hidden: Tensor) -> Tensor:
        self.rows.append(len(hidden))
        return nn.functional.linear(hidden, self.weight)


@pytest.mark.parametrize("frozen", [False, True])
def test_never_asks_for_more_than_a_chunk_and_for_each_token_once(frozen: bool) -> None:
    x = parts()
    head = CountingHead(x["weight"].detach() if frozen else x["weight"])
    loss = loss_of(Distillation(), x["teacher"])
    params = [] if frozen else [head.weight]
    total, _ = chunked_loss(x["hidden"], head, params, loss, chunk=4)
    total.backward()
    assert head.rows == [4, 4, 3]


def saved_for_backward(tokens: int, *, frozen: bool) -> int:
    """Numbers that wait for the backward pass, counted through autograd's own hooks."""
    hidden = torch.randn(tokens, HIDDEN, requires_grad=True)
    weight = torch.randn(VOCAB, HIDDEN, requires_grad=not frozen)
    teacher, ids = torch.randn(tokens, VOCAB), torch.zeros(tokens, dtype=torch.long)

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        result = Distillation().token_loss(logits, teacher[part], TokenInputs(ids).select(part))
        return result.loss.sum(), result.loss.detach().unsqueeze(-1)

    total, _ = chunked_loss(hidden, Head(weight), [] if frozen else [weight], loss, chunk=4)
    assert total.grad_fn is not None
    return sum(tensor.numel() for tensor in total.grad_fn.saved_tensors)


def test_what_waits_for_the_backward_pass_is_the_gradient_alone() -> None:
    for tokens in (8, 80):
        assert saved_for_backward(tokens, frozen=False) == tokens * HIDDEN + VOCAB * HIDDEN
        assert saved_for_backward(tokens, frozen=True) == tokens * HIDDEN


def test_a_frozen_head_never_has_a_weight_gradient_formed(monkeypatch: Any) -> None:
    """The gradient of a head costs as much as its logits; it is not computed to be thrown away."""
    x = parts()
    asked: list[int] = []
    grad = torch.autograd.grad

    def counting(output: Tensor, inputs: list[Tensor], *args: Any, **kwargs: Any) -> Any:
        asked.append(len(inputs))
        return grad(output, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    head = Head(x["weight"].detach(), None)
    total, _ = chunked_loss(
        x["hidden"], head, head.list_trainable(), loss_of(Distillation(), x["teacher"]), chunk=4
    )
    total.backward()
    assert asked == [1, 1, 1]
    assert x["weight"].grad is None
    assert x["hidden"].grad is not None


def test_without_gradients_it_only_sums() -> None:
    x = parts()
    head, loss = Head(x["weight"], x["bias"]), loss_of(Distillation(), x["teacher"])
    expected, _ = chunked_loss(x["hidden"], head, head.list_trainable(), loss, chunk=4)
    with torch.no_grad():
        total, kept = chunked_loss(x["hidden"], head, head.list_trainable(), loss, chunk=4)
    assert not total.requires_grad
    assert kept.shape == (TOKENS, 1)
    torch.testing.assert_close(total, expected.detach(), rtol=0, atol=0)


def test_only_the_head_may_want_a_gradient() -> None:
    x = parts()
    head, loss = Head(x["weight"], x["bias"]), loss_of(Distillation(), x["teacher"])
    total, _ = chunked_loss(x["hidden"].detach(), head, head.list_trainable(), loss, chunk=4)
    total.backward()
    assert x["hidden"].grad is None
    logits = x["hidden"].detach() @ x["weight"].T + x["bias"]
    expected = logits.softmax(-1) - x["teacher"].softmax(-1)
    torch.testing.assert_close(x["bias"].grad, expected.sum(0).detach())


def test_no_tokens_give_a_zero_that_still_reaches_the_weights() -> None:
    x = parts()
    head, loss = Head(x["weight"], x["bias"]), loss_of(Distillation(), x["teacher"])
    total, kept = chunked_loss(x["hidden"][:0], head, head.list_trainable(), loss, chunk=4)
    total.backward()
    assert total == 0
    assert kept.shape == (0, 1)
    assert x["weight"].grad is not None
    assert (x["weight"].grad == 0).all()


def test_no_second_derivative_is_promised() -> None:
    x = parts()
    head, loss = Head(x["weight"]), loss_of(Distillation(), x["teacher"])
    total, _ = chunked_loss(x["hidden"], head, head.list_trainable(), loss, chunk=4)
    (gradient,) = torch.autograd.grad(total, x["hidden"], create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("cache", [True, False])
def test_under_autocast_close_to_float32(cache: bool) -> None:
    """The logits are rounded to bfloat16; the loss is summed in float32 on top of them."""
    x = parts(dtype=torch.float32)
    loss = loss_of(Distillation(), x["teacher"])
    head = Head(x["weight"], x["bias"])
    expected, _ = chunked_loss(x["hidden"], head, head.list_trainable(), loss, chunk=4)
    wanted = [x["hidden"], x["weight"], x["bias"]]
    expected_gradients = torch.autograd.grad(expected, wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache):
        total, kept = chunked_loss(x["hidden"], head, head.list_trainable(), loss, chunk=4)
    gradients = torch.autograd.grad(total, wanted)
    assert total.dtype == kept.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=1e-2, atol=0)
    for gradient, exact in zip(gradients, expected_gradients, strict=True):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, exact, rtol=0, atol=2e-2 * exact.abs().max().item())


def test_gradients_of_a_bfloat16_head_are_summed_in_float32() -> None:
    """Hundreds of chunks added up in bfloat16 stop growing: 256 + 1 is 256 there."""
    tokens = 400
    hidden = torch.ones(tokens, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.tensor([[0.0, -1e3]]).expand(tokens, 2)

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(logits), dtype=torch.long)
        result = Distillation().token_loss(logits, teacher[part], TokenInputs(ids))
        return result.loss.sum(), result.loss.detach().unsqueeze(-1)

    total, _ = chunked_loss(hidden, Head(weight), [weight], loss, chunk=1)
    total.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.bfloat16
    assert weight.grad.flatten().tolist() == [-200.0, 200.0]


def test_the_parts_come_in_order_and_cover_every_token() -> None:
    seen: list[slice] = []
    x = parts()

    def loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        seen.append(copy.copy(part))
        return logits.sum(), logits[:, :2].detach()

    head = Head(x["weight"])
    _, kept = chunked_loss(x["hidden"], head, head.list_trainable(), loss, chunk=5)
    assert seen == [slice(0, 5), slice(5, 10), slice(10, 11)]
    torch.testing.assert_close(kept, (x["hidden"] @ x["weight"].T)[:, :2].detach())
