"""What a loss computes, counted: passes over the vocabulary and products with the head."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_sd.objectives import Distillation, Objective, SampledToken, TokenInputs
from lightning_sd.objectives.reduce import compute_loss
from lightning_sd.scoring import Head, Scores

TOKENS, WIDTH, VOCAB = 8, 16, 4096
SIZE = TOKENS * VOCAB
ALLOCATIONS = ("new_empty", "zeros_like")


class Count(TorchDispatchMode):
    """Counts the operations that write ``[tokens, vocab]``, and the matrix products.

    Two of the passes copy the products of both heads to the memory of all chunks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.passes, self.products = Counter[str](), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm_", "addmm", "_linear_pointwise"):
            self.products += 1
        elif (
            name not in ALLOCATIONS and not func.is_view and getattr(result, "numel", int)() >= SIZE
        ):
            self.passes[name] += 1
        return result


def count(objective: Objective, *, trains_head: bool = True) -> Count:
    hidden, teacher = torch.randn(2, TOKENS, WIDTH)
    head = torch.randn(VOCAB, WIDTH, requires_grad=trains_head)
    ids = torch.arange(TOKENS)
    with Count() as counted:
        compute_loss(
            objective,
            Scores(hidden.requires_grad_(), Head(head)),
            Scores(teacher, Head(head.detach())),
            TokenInputs(ids),
            [TOKENS],
        )
    return counted


@pytest.mark.parametrize(
    ("objective", "passes"),
    [
        (Distillation(kind="js"), 19),
        (Distillation(kind="reverse_kl"), 10),
        (Distillation(kind="forward_kl"), 9),
        (Distillation(kind="js", top_k=100), 8),
        (SampledToken(), 7),
    ],
)
def test_passes_over_the_vocabulary(objective: Objective, passes: int) -> None:
    found = count(objective).passes
    assert found.total() == passes, found
    assert "expm1" not in found  # as slow as twenty subtractions


def test_a_frozen_head_needs_no_product_for_its_gradient() -> None:
    objective = Distillation(kind="js")
    assert count(objective).products == 4
    assert count(objective, trains_head=False).products == 3
