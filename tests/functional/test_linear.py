from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_sd.functional.linear import LogitsBuffer, default_chunk, linear_loss
from lightning_sd.objectives import Distillation, TokenInputs

TOKENS, HIDDEN, VOCAB = 11, 5, 7
Step = Callable[[Tensor, slice], tuple[Tensor, Tensor, Tensor]]


def parts(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "hidden": normal(TOKENS, HIDDEN).requires_grad_(),
        "weight": normal(VOCAB, HIDDEN).requires_grad_(),
        "bias": normal(VOCAB).requires_grad_(),
        "teacher": normal(TOKENS, VOCAB),
        "weights": torch.linspace(0.5, 2, TOKENS, dtype=torch.promote_types(dtype, torch.float32)),
    }


def step_of(x: dict[str, Tensor], objective: Any) -> Step:
    ids = torch.arange(TOKENS) % VOCAB

    def step(logits: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        teacher = x["teacher"][part].to(logits.dtype, copy=True)
        result, factor = objective.loss_and_grad_(logits, teacher, TokenInputs(ids).select(part))
        weights = x["weights"][part]
        return result.loss * weights, factor * weights, result.loss.unsqueeze(-1)

    return step


def plain(x: dict[str, Tensor], objective: Any, scale: float, *, bias: bool) -> tuple[Tensor, ...]:
    """Whole logits and autograd."""
    logits = x["hidden"] @ x["weight"].T
    logits = scale * (logits + x["bias"] if bias else logits)
    tokens = TokenInputs(torch.arange(TOKENS) % VOCAB)
    losses = objective.token_loss(logits, x["teacher"], tokens).loss
    total = (losses * x["weights"]).sum()
    wanted = [x["hidden"], x["weight"], *([x["bias"]] if bias else [])]
    return total, losses, *torch.autograd.grad(3 * total, wanted)


OBJECTIVES = [
    Distillation(),
    Distillation(kind="reverse_kl", element_clip=0.1),
    Distillation(kind="js", top_k=3, token_clip=0.4),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("chunk", [1, 4, 11, 1000, None])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_equals_the_whole_loss_for_any_chunk(
    objective: Any, chunk: int | None, scale: float, bias: bool
) -> None:
    x = parts()
    given = x["bias"] if bias else None
    step = step_of(x, objective)
    total, kept = linear_loss(x["hidden"], x["weight"], given, step, scale=scale, chunk=chunk)
    wanted = [x["hidden"], x["weight"], *([x["bias"]] if bias else [])]
    gradients = torch.autograd.grad(3 * total, wanted)
    expected, losses, *expected_gradients = plain(x, objective, scale, bias=bias)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(kept.squeeze(-1), losses.detach(), rtol=0, atol=1e-10)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize("wanted", [("hidden",), ("weight",), ("bias",), ("hidden", "bias")])
def test_only_wanted_gradients_are_formed(wanted: tuple[str, ...]) -> None:
    x = parts()
    for name in {"hidden", "weight", "bias"} - set(wanted):
        x[name] = x[name].detach()
    step = step_of(x, Distillation())
    total, _ = linear_loss(x["hidden"], x["weight"], x["bias"], step, chunk=4)
    assert total.grad_fn is not None
    formed = [t for t in total.grad_fn.saved_tensors if t is not None]
    assert sum(t.numel() for t in formed) == sum(x[name].numel() for name in wanted)
    total.backward()
    full = parts()
    _, _, *gradients = plain(full, Distillation(), 1.0, bias=True)
    expected = dict(zip(("hidden", "weight", "bias"), gradients, strict=True))
    for name in wanted:
        torch.testing.assert_close(3 * x[name].grad, expected[name], rtol=0, atol=1e-10)


def test_never_holds_more_than_a_chunk_and_sees_each_token_once() -> None:
    x, seen, memory = parts(), [], set()
    inner = step_of(x, Distillation())

    def step(logits: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        seen.append((len(logits), part))
        memory.add(logits.data_ptr())
        return inner(logits, part)

    total, _ = linear_loss(x["hidden"], x["weight"], x["bias"], step, chunk=4)
    total.backward()
    assert seen == [(4, slice(0, 4)), (4, slice(4, 8)), (3, slice(8, 11))]
    assert len(memory) == 1


def test_what_waits_for_the_backward_pass_does_not_grow_with_the_vocabulary_times_tokens() -> None:
    x = parts()
    total, _ = linear_loss(x["hidden"], x["weight"], None, step_of(x, Distillation()), chunk=4)
    assert total.grad_fn is not None
    held = sum(t.numel() for t in total.grad_fn.saved_tensors if t is not None)
    assert held == TOKENS * HIDDEN + VOCAB * HIDDEN


def test_without_gradients_it_only_sums() -> None:
    x = parts()
    with torch.no_grad():
        total, _ = linear_loss(x["hidden"], x["weight"], x["bias"], step_of(x, Distillation()))
    assert not total.requires_grad
    torch.testing.assert_close(total, plain(x, Distillation(), 1.0, bias=True)[0].detach())


def test_a_tied_head_adds_to_the_embedding_s_gradient() -> None:
    embedding = nn.Embedding(VOCAB, HIDDEN, dtype=torch.float64)
    x, ids = parts(), torch.arange(TOKENS) % VOCAB
    found = []
    for step in (step_of(x, Distillation()), None):
        x["hidden"], x["weight"] = embedding(ids).tanh(), embedding.weight
        if step is not None:
            total, _ = linear_loss(x["hidden"], x["weight"], None, step, chunk=3)
        else:
            logits = x["hidden"] @ x["weight"].T
            losses = Distillation().token_loss(logits, x["teacher"], TokenInputs(ids)).loss
            total = (losses * x["weights"]).sum()
        found.append(torch.autograd.grad(total, embedding.weight)[0])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-10)


def test_no_tokens_give_a_zero_that_still_reaches_the_weights() -> None:
    x = parts()
    step = step_of(x, Distillation())
    total, kept = linear_loss(x["hidden"][:0], x["weight"], x["bias"], step, chunk=4)
    total.backward()
    assert total == 0
    assert kept.shape == (0, 1)
    for name in ("weight", "bias"):
        gradient = x[name].grad
        assert gradient is not None
        assert (gradient == 0).all()


def test_no_second_derivative_is_promised() -> None:
    x = parts()
    total, _ = linear_loss(x["hidden"], x["weight"], None, step_of(x, Distillation()))
    (gradient,) = torch.autograd.grad(total, x["hidden"], create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("mode", ["autocast", "bf16 weights", "bf16 all"])
def test_low_precision_stays_close_to_float32(mode: str, scale: float) -> None:
    x = parts(torch.float32)
    expected, _, *expected_gradients = plain(x, Distillation(), scale, bias=True)
    given = {name: x[name].detach().clone() for name in ("hidden", "weight", "bias")}
    if mode != "autocast":
        given["weight"], given["bias"] = given["weight"].bfloat16(), given["bias"].bfloat16()
    if mode == "bf16 all":
        given["hidden"] = given["hidden"].bfloat16()
    wanted = [tensor.requires_grad_() for tensor in given.values()]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode != "bf16 all"):
        total, kept = linear_loss(*wanted, step_of(x, Distillation()), scale=scale, chunk=4)
    gradients = torch.autograd.grad(3 * total, wanted)
    assert total.dtype == kept.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=3e-2, atol=0)
    for gradient, tensor, exact in zip(gradients, wanted, expected_gradients, strict=True):
        assert gradient.dtype == tensor.dtype
        atol = 4e-2 * exact.abs().max().item()
        torch.testing.assert_close(gradient.float(), exact, rtol=0, atol=atol)


def test_gradients_of_a_bfloat16_head_are_summed_in_float32() -> None:
    """Hundreds of chunks added up in bfloat16 stop growing: 128 + 1/2 is 128 there."""
    tokens = 400
    hidden = torch.ones(tokens, 1, dtype=torch.bfloat16)
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    x = {"teacher": torch.tensor([[0.0, -1e3]]).expand(tokens, 2), "weights": torch.ones(tokens)}

    def step(logits: Tensor, part: slice) -> tuple[Tensor, Tensor, Tensor]:
        ids = torch.zeros(len(logits), dtype=torch.long)
        teacher = x["teacher"][part].clone()
        result, factor = Distillation().loss_and_grad_(logits, teacher, TokenInputs(ids))
        return result.loss, factor, result.loss.unsqueeze(-1)

    total, _ = linear_loss(hidden, weight, None, step, chunk=1)
    total.backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-200.0, 200.0]


def test_a_buffer_s_logits_are_the_head_s() -> None:
    x = parts()
    buffer = LogitsBuffer(x["weight"], x["bias"], 0.5)
    with torch.no_grad():
        for part in (slice(0, 2), slice(2, 9), slice(9, 11)):
            expected = 0.5 * (x["hidden"][part] @ x["weight"].T + x["bias"])
            torch.testing.assert_close(buffer.logits(x["hidden"][part]), expected)


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_head_s_gradient_is_handed_over_not_copied(factor: float) -> None:
    x = parts()
    total, _ = linear_loss(x["hidden"], x["weight"], None, step_of(x, Distillation()), chunk=4)
    assert total.grad_fn is not None
    held = {t.data_ptr() for t in total.grad_fn.saved_tensors if t is not None}
    found = torch.autograd.grad(factor * total, [x["hidden"], x["weight"]])
    assert {gradient.data_ptr() for gradient in found} == held


def test_backward_leaves_one_copy_of_the_head_s_gradient() -> None:
    x = parts()
    total, _ = linear_loss(x["hidden"], x["weight"], None, step_of(x, Distillation()), chunk=4)
    assert total.grad_fn is not None
    held = total.grad_fn.saved_tensors[1].data_ptr()
    total.backward()
    assert x["weight"].grad is not None
    assert x["weight"].grad.data_ptr() == held


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_a_second_backward_pass_is_right_or_refused(factor: float) -> None:
    """Never silently another gradient, although what was handed over may have been changed."""
    x = parts()
    total, _ = linear_loss(x["hidden"], x["weight"], None, step_of(x, Distillation()), chunk=4)
    (factor * total).backward(retain_graph=True)
    assert x["weight"].grad is not None
    once = x["weight"].grad.clone()
    x["weight"].grad.zero_()  # as clipping and optimizers do, in place
    if factor == 1.0:
        (factor * total).backward()
        torch.testing.assert_close(x["weight"].grad, once)
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            (factor * total).backward()


def test_gradients_that_nobody_changed_can_be_asked_for_again() -> None:
    x = parts()
    total, _ = linear_loss(x["hidden"], x["weight"], None, step_of(x, Distillation()), chunk=4)
    first = torch.autograd.grad(total, [x["hidden"], x["weight"]], retain_graph=True)
    second = torch.autograd.grad(total, [x["hidden"], x["weight"]])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("vocab", "tokens"), [(32_000, 524), (131_072, 128), (262_144, 128)])
def test_chunks_hold_enough_tokens_for_the_head_s_gradient(vocab: int, tokens: int) -> None:
    assert default_chunk(vocab) == tokens
