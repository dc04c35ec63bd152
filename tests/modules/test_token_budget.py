"""A token budget splits a micro-batch, and leaves loss and gradient as they are."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from lightning_sd import ReferenceSolution
from lightning_sd.modules import safe_scorer
from lightning_sd.modules.memory import MemoryLimits
from lightning_sd.modules.safe_scorer import MemorySafeScorer, fill
from tests.stubs import LabData, module, trainer, weights

ATTEMPTS = ["7", "12+5=17, and then 17-4=13", "1", "<answer>8</answer>", "9-9-9-9" * 6, "", "no"]


class Passes:
    """Keeps the tokens of each forward pass of the backbone, padding included."""

    def __init__(self, model: Any) -> None:
        self.grad: list[int] = []
        self.no_grad: list[int] = []
        model.get_decoder().register_forward_pre_hook(self.watch, with_kwargs=True)

    def watch(self, module: Any, args: Any, kwargs: Any) -> None:
        passes = self.grad if torch.is_grad_enabled() else self.no_grad
        passes.append(kwargs["input_ids"].numel())


class Losses(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.values.append(float(outputs["loss"]))


def fit(make_llama: Any, tokenizer: Any, tmp_path: Any, budget: int | None) -> Any:
    torch.manual_seed(0)
    model = make_llama(dtype=torch.float64)
    student = module(model, tokenizer, attempts="stored", max_score_tokens=budget)
    student.configure_model()
    student.rollout_scorer.scorer.share_prompts = False
    student.rollout_scorer.scorer.prepare()
    passes, losses = Passes(student.student), Losses()
    run = trainer(tmp_path, ReferenceSolution(), losses, max_steps=2, accumulate_grad_batches=2)
    run.fit(student, datamodule=LabData(attempts=ATTEMPTS))
    return weights(student.student), losses.values, passes


def test_any_budget_gives_the_same_loss_and_weights(
    make_llama: Any, tokenizer: Any, tmp_path: Any
) -> None:
    expected, losses, whole = fit(make_llama, tokenizer, tmp_path, None)
    for budget in (1, 60, 90):
        weights, values, passes = fit(make_llama, tokenizer, tmp_path, budget)
        assert values == pytest.approx(losses, rel=1e-10)
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-10, atol=1e-12)
        assert len(passes.no_grad) > len(whole.no_grad)  # the teacher
        assert len(passes.grad) > len(whole.grad)


def test_fill_keeps_the_budget_except_for_single_rows() -> None:
    sizes = [3, 4, 9, 1, 7, 8]
    for budget in range(1, 40):
        groups = fill(sizes, budget)
        assert [row for group in groups for row in group] == list(range(6))
        assert all(len(g) == 1 or sum(sizes[r] for r in g) <= budget for g in groups)
        # No two neighbors would fit together.
        pairs = itertools.pairwise(groups)
        assert all(sum(sizes[r] for r in a) + sizes[b[0]] > budget for a, b in pairs)
    assert fill([], 5) == [range(0)]


def test_layers_that_are_gathered_one_by_one_are_refused(
    make_llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe_scorer, "gathers_layers", lambda model: True)
    with pytest.raises(ValueError, match="max_score_tokens=9 with FSDP2's gather=layers"):
        MemorySafeScorer(make_llama(), MemoryLimits(), 9)


def test_a_budget_of_zero_is_refused(make_llama: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="max_score_tokens=0: must be at least 1"):
        module(make_llama(), tokenizer, max_score_tokens=0)
