"""Liger's kernel in Triton's interpreter, on the CPU: it must be what our divergence is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from lightning_sd.functional import DivergenceSpec, divergence
from lightning_sd.functional.liger import liger_computes, liger_loss

SPECS = [
    DivergenceSpec("forward_kl"),
    DivergenceSpec("reverse_kl"),
    DivergenceSpec("js", beta=0.5),
    DivergenceSpec("js", beta=0.2),
]
TOKENS, HIDDEN, OTHER, VOCAB = 11, 16, 24, 50


def compare() -> None:
    """Value and gradients of each; another width and another head of the teacher."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    hidden, weight = normal(TOKENS, HIDDEN).requires_grad_(), normal(VOCAB, HIDDEN).requires_grad_()
    other, other_weight = normal(TOKENS, OTHER), normal(VOCAB, OTHER)
    ids = torch.zeros(TOKENS, dtype=torch.long)
    for spec in SPECS:
        for temperature in (1.0, 0.7):
            found = liger_loss(hidden, weight, other, other_weight, spec, temperature=temperature)
            logits, teacher = hidden @ weight.T, other @ other_weight.T
            terms = divergence(logits / temperature, teacher / temperature, ids, spec)
            expected = terms.value.sum()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
            ours = torch.autograd.grad(expected / 3, [hidden, weight])
            for a, b in zip(torch.autograd.grad(found / 3, [hidden, weight]), ours, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item())


@pytest.mark.slow
def test_the_kernel_s_sum_and_gradients_are_ours() -> None:
    pytest.importorskip("liger_kernel")
    pytest.importorskip("triton")
    # Triton reads the variable when it is imported: a process of its own.
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", "from tests.functional.test_liger import compare; compare()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "changes", [{"top_k": 5}, {"element_clip": 0.1}, {"top_k": 5, "tail": False}], ids=str
)
def test_what_the_kernel_does_not_know_is_refused(changes: dict[str, Any]) -> None:
    spec = DivergenceSpec("js", **changes)
    assert not liger_computes(spec)
    x = torch.ones(2, 2)
    with pytest.raises(ValueError, match="without clips"):
        liger_loss(x, x, x, x, spec)
    assert all(map(liger_computes, SPECS))


def test_a_missing_extra_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", None)
    x = torch.ones(2, 2)
    with pytest.raises(ImportError, match=r"lightning_sd\[liger\]"):
        liger_loss(x, x, x, x, SPECS[0])


def test_no_tokens_give_a_zero_that_still_reaches_the_weights() -> None:
    hidden, weight = torch.ones(0, 2, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    liger_loss(hidden, weight, hidden, weight, SPECS[0]).backward()
    assert weight.grad is not None
    assert (weight.grad == 0).all()


def test_the_objective_hands_over_to_the_kernel(monkeypatch: Any) -> None:
    """Where the kernel runs, its sum is the loss; nothing is known of single tokens then."""
    import lightning_sd.objectives.liger as fused
    from lightning_sd.objectives import Distillation, LigerDistillation, Tokens
    from lightning_sd.objectives.reduce import objective_loss
    from lightning_sd.scoring import Head, Scores

    def dense(hidden, weight, other, other_weight, spec, *, temperature):
        logits, target = hidden @ weight.T / temperature, other @ other_weight.T / temperature
        return divergence(
            logits, target, torch.zeros(len(hidden), dtype=torch.long), spec
        ).value.sum()

    generator = torch.Generator().manual_seed(0)
    hidden, other = (torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in "ab")
    weight = torch.randn(11, 5, generator=generator, dtype=torch.float64).requires_grad_()
    student = Scores(hidden.requires_grad_(), Head(weight, scale=0.5))
    teacher = Scores(other, Head(weight.detach(), scale=0.5))
    tokens = Tokens(torch.zeros(7, dtype=torch.long))
    plain = objective_loss(Distillation(temperature=1.3), student, teacher, tokens, [3, 4])
    expected = torch.autograd.grad(plain.total, [hidden, weight])
    objective = LigerDistillation(temperature=1.3)
    elsewhere = objective_loss(objective, student, teacher, tokens, [3, 4])
    assert torch.equal(elsewhere.total, plain.total)
    monkeypatch.setattr(fused, "FUSED_ON", ("cpu",))
    monkeypatch.setattr(fused, "liger_loss", dense)
    output = objective_loss(objective, student, teacher, tokens, [3, 4])
    torch.testing.assert_close(output.total, plain.total)
    for got, want in zip(
        torch.autograd.grad(output.total, [hidden, weight]), expected, strict=True
    ):
        torch.testing.assert_close(got, want)
    assert output.count == plain.count
    assert output.advantages is None
    for bad in ({"top_k": 5}, {"element_clip": 0.1}, {"reduction": "sequence"}):
        with pytest.raises(ValueError, match="LigerDistillation knows"):
            LigerDistillation(**bad)
