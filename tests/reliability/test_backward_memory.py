"""Out of memory in the backward pass: the part is split, and the gradient is the same."""

import copy
from types import SimpleNamespace

import pytest
import torch

from benchmarks.models.checks import flatten_gradient
from benchmarks.models.tiny import make_model
from lightning_sd import ReferenceSolution
from lightning_sd.models.experts import find_router_loss
from lightning_sd.modules.memory import MemoryLimits
from lightning_sd.modules.safe_scorer import MemorySafeScorer
from tests.stubs import LabData, module, trainer, weights

ATTEMPTS = ["7", "12+5", "1", "<answer>8</answer>", "9-9-9-9", "3*4=12", "0", "no"]
PROMPTS = [[5, 6, 7, 8 + i] for i in range(6)]
COMPLETIONS = [[9 + i] * (1 + i % 3) for i in range(6)]
POINTS = ("norm", "layers.1", "layers.0", "embed_tokens")
"""Modules of a model with two layers, in the order of the backward pass."""


class Fault:
    """Raises torch.OutOfMemoryError when the backward pass of too many rows reaches a module."""

    def __init__(self, model, point, rows):
        self.rows, self.seen = rows, []
        model.get_decoder().get_submodule(point).register_forward_hook(self.watch)

    def watch(self, module, args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: self.check(hidden.shape[0]))

    def check(self, rows):
        self.seen.append(rows)
        if rows > self.rows:
            raise torch.OutOfMemoryError(f"{rows} rows")


def compute(model, limits, fault=None):
    """Gradients of two micro-batches, the second of which meets the fault."""
    scorer = MemorySafeScorer(model, limits)
    scorer.share_prompts = False  # else the rows of one prompt are one row of the model
    model.zero_grad()
    scorer.score(PROMPTS[:2], COMPLETIONS[:2]).logits().cos().sum().backward()
    seen = Fault(model, *fault) if fault else None
    scorer.score(PROMPTS, COMPLETIONS).logits().sin().sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}, seen


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_the_same_wherever_memory_runs_out(make_llama, point, tied):
    model = make_llama(dtype=torch.float64, tie_word_embeddings=tied)
    expected, _ = compute(copy.deepcopy(model), MemoryLimits())
    limits = MemoryLimits()
    with pytest.warns(UserWarning, match="in the backward pass of 6 rows: .* at most 3") as said:
        grads, fault = compute(model, limits, (point, 2))
    assert fault.seen == [6, 3, 1, 2, 1, 2]  # the last rows come first
    assert limits.scoring == 2
    assert len([w for w in said if "Out of memory" in str(w.message)]) == 2  # 6 rows and 3 rows
    for name, grad in expected.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-10, atol=1e-12)


def test_the_routers_loss_keeps_its_gradient():
    """It is computed over all rows, while the backward pass goes through parts of them."""
    model = make_model("mixtral", dtype=torch.float64, output_router_logits=True)
    model.set_experts_implementation("eager")  # grouped products of matrices have no float64

    def compute_gradient():
        model.zero_grad()
        scores = MemorySafeScorer(model, MemoryLimits()).score(PROMPTS, COMPLETIONS)
        value = find_router_loss(model).compute(scores.router_logits)
        (scores.logits().sin().sum() + 9.0 * value).backward()
        return flatten_gradient(model)

    expected = compute_gradient()
    Fault(model, "norm", 2)
    with pytest.warns(UserWarning, match="in the backward pass of 6 rows"):
        gradient = compute_gradient()
    assert (gradient - expected).norm() < 1e-6 * expected.norm()


def test_later_steps_are_done_in_parts_from_the_start(make_llama):
    model, limits = make_llama(dtype=torch.float64), MemoryLimits(scoring=2)
    expected, _ = compute(copy.deepcopy(model), MemoryLimits())
    grads, fault = compute(model, limits, ("layers.0", 2))
    assert max(fault.seen) == 2
    for name, grad in expected.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-10, atol=1e-12)


def test_a_single_row_that_does_not_fit_ends_with_a_remedy(make_llama):
    model = make_llama()
    with (
        pytest.warns(UserWarning, match="Out of memory"),
        pytest.raises(torch.OutOfMemoryError, match="the backward pass with a single row"),
    ):
        compute(model, MemoryLimits(), ("layers.0", 0))


def test_a_student_whose_head_alone_is_trained(make_llama):
    model = make_llama(dtype=torch.float64, tie_word_embeddings=False)
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    grads, _ = compute(model, MemoryLimits())
    assert grads["lm_head.weight"].any()


def test_recomputation_has_the_precision_of_the_forward_pass(make_llama):
    model, limits = make_llama(), MemoryLimits()
    scorer = MemorySafeScorer(model, limits)
    scorer.share_prompts = False
    dtypes = []
    layer = next(m for m in model.modules() if type(m).__name__ == "LlamaMLP")
    layer.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
    scorer.prepare()
    with torch.autocast("cpu", torch.bfloat16):
        Fault(model, "layers.0", 3)
        dtypes.clear()
        loss = scorer.score(PROMPTS, COMPLETIONS).hidden.sum()
    with pytest.warns(UserWarning, match="in the backward pass"):
        loss.backward()
    assert dtypes == [torch.bfloat16] * 3  # all rows, then twice half of them


def fit(make_llama, tokenizer, tmp_path, rows):
    student = module(make_llama(dtype=torch.float64), tokenizer, attempts="stored")
    student.configure_model()
    student.rollout_scorer.scorer.share_prompts = False
    fault = Fault(student.student, "layers.0", rows)
    run = trainer(tmp_path, ReferenceSolution(), max_steps=2, accumulate_grad_batches=2)
    run.fit(student, datamodule=LabData(attempts=ATTEMPTS))
    return weights(student.student), fault


def test_training_goes_on_with_the_same_weights(make_llama, tokenizer, tmp_path):
    whole, _ = fit(make_llama, tokenizer, tmp_path, 99)
    with pytest.warns(UserWarning, match="in the backward pass of 4 rows: .* at most 2"):
        split, fault = fit(make_llama, tokenizer, tmp_path, 2)
    assert [rows for rows in fault.seen if rows > 2] == [4]  # it remembers
    for name, value in whole.items():
        torch.testing.assert_close(split[name], value, rtol=1e-10, atol=1e-12)


def test_several_processes_end_with_a_remedy(make_llama, tokenizer):
    student = module(make_llama(), tokenizer)
    student._trainer = SimpleNamespace(world_size=2, global_rank=1)
    student._fabric = None
    loss = torch.zeros((), requires_grad=True)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"rank 1: .*accumulate_grad_batches.*\(full\)"
    ):
        student.backward(raise_in_backward(loss))


def raise_in_backward(loss):
    def fail(gradient):
        raise torch.OutOfMemoryError("full")

    loss.register_hook(fail)
    return loss * 1
