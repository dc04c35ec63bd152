"""Out of memory: fewer rows at a time from then on, and the same gradient."""

from collections import Counter

import pytest
import torch

from lightning_sd import ReferenceSolution
from lightning_sd.models.lora import LoRA, add_lora
from lightning_sd.modules import safe_scorer
from lightning_sd.modules.memory import MemoryLimits
from lightning_sd.modules.safe_scorer import MemorySafeScorer
from lightning_sd.scoring import Scorer
from tests.stubs import LabData, equal, module, trainer, weights

ATTEMPTS = ["7", "12+5", "1", "<answer>8</answer>", "9-9-9-9", "3*4=12", "0", "no"]
PROMPTS = [[5, 6, 7, 8 + i] for i in range(6)]
COMPLETIONS = [[9 + i] * 3 for i in range(6)]


class Allocator:
    """Raises torch.OutOfMemoryError in a forward pass of too many rows, as a small GPU would."""

    def __init__(self, model, rows, counts=lambda inputs: True):
        self.rows, self.counts, self.seen = rows, counts, Counter()
        layer = next(m for m in model.modules() if type(m).__name__ == "LlamaModel")
        layer.register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, model, args, kwargs):
        rows = kwargs["input_ids"].shape[0]
        self.seen[rows] += 1
        if rows > self.rows and self.counts(kwargs):
            raise torch.OutOfMemoryError(f"{rows} rows")


def test_scores_and_gradients_are_the_same_in_parts(make_llama):
    def compute(limit):
        model = make_llama(dtype=torch.float64)
        limits = MemoryLimits()
        scorer = MemorySafeScorer(model, limits)
        scorer.score(PROMPTS[:1], COMPLETIONS[:1])  # probes the model with rows of its own
        if limit is not None:
            Allocator(model, limit)
        scores = scorer.score(PROMPTS, COMPLETIONS)
        scores.logits().sin().sum().backward()
        return limits, scores.hidden, {n: p.grad for n, p in model.named_parameters()}

    _, hidden, grads = compute(None)
    with pytest.warns(UserWarning, match="Out of memory in scoring of 6 rows: .* at most 3"):
        limits, in_parts, other = compute(2)
    assert limits.scoring == 2
    torch.testing.assert_close(in_parts, hidden, rtol=1e-10, atol=1e-12)
    for name, grad in grads.items():
        torch.testing.assert_close(other[name], grad, rtol=1e-9, atol=1e-11)


def test_dropout_is_the_same_when_a_part_is_computed_again(make_llama, monkeypatch):
    def compute():
        torch.manual_seed(2)
        model = add_lora(make_llama(dtype=torch.float64), LoRA(r=2, dropout=0.5)).train()
        scorer = MemorySafeScorer(model, MemoryLimits(scoring=2))
        torch.manual_seed(3)
        scorer.score(PROMPTS, COMPLETIONS).logits().sin().sum().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    again = compute()
    monkeypatch.setattr(safe_scorer, "checkpoint", lambda run, *args, use_reentrant: run(*args))
    assert any(grad.any() for grad in again.values())
    assert equal(again, compute())


def test_a_single_row_that_does_not_fit_ends_with_a_remedy(make_llama):
    model = make_llama()
    scorer = MemorySafeScorer(model, MemoryLimits())
    scorer.score(PROMPTS, COMPLETIONS)
    Allocator(model, 0)
    with (
        pytest.warns(UserWarning, match="Out of memory"),
        pytest.raises(torch.OutOfMemoryError, match="with a single row"),
    ):
        scorer.score(PROMPTS, COMPLETIONS)


def test_other_errors_pass_through():
    with pytest.raises(KeyError):
        MemoryLimits().run("scoring", 4, lambda limit: {}[limit])


def fit(make_llama, tokenizer, tmp_path, rows, counts=lambda inputs: True, **settings):
    student = module(make_llama(dtype=torch.float64), tokenizer, **settings)
    student.configure_model()
    student.rollout_scorer.scorer.score(PROMPTS[:1], COMPLETIONS[:1])
    generator = torch.Generator().manual_seed(0)
    student.sampler.sample(
        student.student, PROMPTS[:2], samples=2, stop_ids=[1], generator=generator
    )
    allocator = Allocator(student.student, rows, counts)
    run = trainer(tmp_path, ReferenceSolution(), max_steps=2)
    run.fit(student, datamodule=LabData(attempts=ATTEMPTS))
    return student, run, allocator


def test_a_training_step_goes_on_with_the_same_update(make_llama, tokenizer, tmp_path):
    whole, run, _ = fit(make_llama, tokenizer, tmp_path, 99, attempts="stored")
    with pytest.warns(UserWarning, match="Out of memory in scoring"):
        split, other, allocator = fit(make_llama, tokenizer, tmp_path, 2, attempts="stored")
    assert split.memory_limits.scoring == 2
    for name, value in weights(whole.student).items():
        torch.testing.assert_close(weights(split.student)[name], value, rtol=1e-9, atol=1e-11)
    assert other.callback_metrics["train/loss"] == pytest.approx(
        run.callback_metrics["train/loss"].item(), rel=1e-6
    )
    assert sum(allocator.seen[rows] for rows in range(3, 9)) == 1  # it remembers


def is_sampling(inputs):
    return inputs["use_cache"] and not torch.is_grad_enabled()


def test_sampling_goes_on_with_fewer_prompts(make_llama, tokenizer, tmp_path):
    with pytest.warns(UserWarning, match="Out of memory in sampling of 8 rows: .* at most 4"):
        student, run, _ = fit(make_llama, tokenizer, tmp_path, 4, is_sampling)
    assert student.memory_limits.sampling == 4
    assert run.global_step == 2
    questions = LabData().questions("train")[:4]
    rollouts = student.sample(questions, student.sampler, 2, "train", 0)
    assert [r.question.id for r in rollouts] == [q.id for q in questions for _ in range(2)]
    assert [r.group for r in rollouts] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len({r.ids for r in rollouts}) == 8


def test_sampling_splits_the_samples_of_one_prompt(make_llama, tokenizer, tmp_path):
    with pytest.warns(UserWarning, match="Out of memory in sampling"):
        student, _, _ = fit(make_llama, tokenizer, tmp_path, 1, is_sampling)
    assert student.memory_limits.sampling == 1


def test_limits_are_in_the_checkpoint(make_llama, tokenizer, tmp_path):
    first, run, _ = fit(make_llama, tokenizer, tmp_path, 99)
    first.memory_limits.sampling = 3
    run.save_checkpoint(tmp_path / "a.ckpt")
    second = module(make_llama(dtype=torch.float64), tokenizer)
    resumed = trainer(tmp_path, ReferenceSolution(), max_steps=3)
    resumed.fit(second, datamodule=LabData(), ckpt_path=tmp_path / "a.ckpt")
    assert vars(second.memory_limits) == {"sampling": 3, "scoring": None}


def test_without_an_error_it_is_the_plain_scorer(make_llama):
    model = make_llama()
    plain = Scorer(model).score(PROMPTS, COMPLETIONS)
    safe = MemorySafeScorer(model, MemoryLimits()).score(PROMPTS, COMPLETIONS)
    assert equal({"hidden": plain.hidden}, {"hidden": safe.hidden})
