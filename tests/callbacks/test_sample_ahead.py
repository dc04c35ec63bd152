"""SampleAhead with an engine that is a copy of the student."""

from __future__ import annotations

import copy
import threading
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd import (
    CritiqueDataModule,
    PolicyGradient,
    ReferenceSolution,
    RuleCritic,
    SampleAhead,
    TransformersSampler,
    VLLMSampler,
)
from lightning_sd.lab import ArithmeticTask
from lightning_sd.types import Verdict
from tests.stubs import CopySampler, LabData, equal, module, trainer, weights


class Recorder(Callback):
    """Keeps the weights before each step, the step's rollouts, and what is logged."""

    def __init__(self) -> None:
        self.before: list[Any] = []
        self.rollouts: list[Any] = []
        self.means: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.before.append(copy.deepcopy(pl_module.student))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.rollouts.append(outputs["step"].rollouts)
        values = {name: float(v) for name, v in trainer.callback_metrics.items()}
        self.means.append(values)


def make_data(tmp_path: Any, train_size: int = 16) -> CritiqueDataModule:
    task = ArithmeticTask(train_size=train_size, val_size=8, test_size=8)
    return CritiqueDataModule(task, RuleCritic(), cache_dir=str(tmp_path / "cache"), batch_size=2)


def fit(
    tmp_path: Any,
    student: Any,
    *callbacks: Any,
    data: Any = None,
    ckpt: Any = None,
    **settings: Any,
) -> Recorder:
    recorder = Recorder()
    parts = (ReferenceSolution(), SampleAhead(), *callbacks, recorder)
    fitting = trainer(
        tmp_path, *parts, **{"max_steps": 4, "enable_checkpointing": True, **settings}
    )
    fitting.fit(student, data or make_data(tmp_path), ckpt_path=ckpt)
    return recorder


def make_student(make_llama: Any, tokenizer: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = make_llama(initializer_range=0.2)
    settings = {"sampler": CopySampler(max_new_tokens=10), "check_every": 3, **settings}
    return module(model, tokenizer, **settings)


@torch.no_grad()
def compute_logprobs(model: Any, student: Any, rollout: Any) -> torch.Tensor:
    prompt = student.encode(rollout.question.messages)
    ids = torch.tensor([[*prompt, *rollout.ids]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
    return logits.log_softmax(-1).gather(-1, torch.tensor(rollout.ids)[:, None])[:, 0]


def test_batches_are_one_step_old_except_for_those_that_are_compared(
    make_llama: Any, tokenizer: Any, tmp_path: Any
) -> None:
    student = make_student(make_llama, tokenizer)
    sampler = student.sampler
    recorder = fit(tmp_path, student, log_every_n_steps=1)
    assert [means["train/staleness"] for means in recorder.means] == [0, 1, 1, 0]
    for step, rollouts in enumerate(recorder.rollouts):
        source = recorder.before[step - (0, 1, 1, 0)[step]]
        for rollout in rollouts:
            expected = compute_logprobs(source, student, rollout)
            actual = torch.tensor(rollout.logprobs, dtype=torch.float64)
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)
    stale = recorder.rollouts[1][0]
    now = compute_logprobs(recorder.before[1], student, stale)
    assert (now - torch.tensor(stale.logprobs)).abs().max() > 1e-3  # else it shows nothing
    assert set(sampler.engine["threads"]) == {"rollouts_0"}
    assert student.sampler is sampler


def test_the_importance_weights_correct_for_the_weights_that_sampled(
    make_llama: Any, tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_student(
        make_llama,
        tokenizer,
        objective=PolicyGradient(importance_clip=1.05, scale="none", reduction="token"),
        check_every=0,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=2.0),
    )
    data = make_data(tmp_path)
    monkeypatch.setattr(
        data.task, "verify", lambda question, text: Verdict(len(text) % 7 / 7, correct=False)
    )
    recorder = fit(tmp_path, student, data=data, log_every_n_steps=1)
    corrected = 0
    for step in (1, 2, 3):
        total, tokens = 0.0, 0
        rollouts = recorder.rollouts[step]
        for rollout in rollouts:
            group = [r.verdict.reward for r in rollouts if r.group == rollout.group]
            advantage = rollout.verdict.reward - sum(group) / len(group)
            old = compute_logprobs(recorder.before[step - 1], student, rollout)
            new = compute_logprobs(recorder.before[step], student, rollout)
            ratio = (new - old).exp()
            corrected += int((ratio > 1.05).sum() + (ratio < 0.95).sum())
            total -= float((advantage * ratio.clamp(max=1.05)).sum())
            tokens += len(rollout.ids)
        assert recorder.means[step]["train/loss"] == pytest.approx(total / tokens, abs=1e-5)
    assert corrected > 10


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_equals_the_unbroken_one(
    make_llama: Any, tokenizer: Any, tmp_path: Any, accumulate: int
) -> None:
    settings = {"accumulate_grad_batches": accumulate, "max_steps": 3}
    whole = make_student(make_llama, tokenizer, check_every=0)
    keep = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=2, save_top_k=-1)
    recorder = fit(tmp_path / "whole", whole, keep, **settings)
    (path,) = (tmp_path / "kept").glob("*step=2.ckpt")
    resumed = make_student(make_llama, tokenizer, check_every=0)
    again = fit(tmp_path / "again", resumed, ckpt=path, **settings)
    assert [r.ids for r in again.rollouts[0]] == [r.ids for r in recorder.rollouts[2 * accumulate]]
    assert equal(weights(whole.student), weights(resumed.student))


class Meeting(Callback):
    """The step waits for the draw of the next batch, and that draw for the step."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=30)

    def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 0:
            self.barrier.wait()


def test_the_next_batch_is_drawn_while_the_student_trains(
    make_llama: Any, tokenizer: Any, tmp_path: Any
) -> None:
    meeting, calls = Meeting(), iter(range(9))

    @dataclass(frozen=True)
    class Waiting(CopySampler):
        def draw(self, *args: Any, **kwargs: Any) -> Any:
            if next(calls) == 1:
                meeting.barrier.wait()
            return super().draw(*args, **kwargs)

    student = make_student(make_llama, tokenizer, sampler=Waiting(max_new_tokens=4))
    fit(tmp_path, student, meeting, max_steps=2)
    assert not meeting.barrier.broken


def test_a_failing_draw_stops_the_run_and_frees_the_engine(
    make_llama: Any, tokenizer: Any, tmp_path: Any
) -> None:
    calls = iter(range(9))

    @dataclass(frozen=True)
    class Failing(CopySampler):
        def draw(self, *args: Any, **kwargs: Any) -> Any:
            if next(calls) == 1:
                raise RuntimeError("the server is gone")
            return super().draw(*args, **kwargs)

    student = make_student(make_llama, tokenizer, sampler=Failing(max_new_tokens=4))
    sampler = student.sampler
    with pytest.raises(RuntimeError, match="the server is gone"):
        fit(tmp_path, student)
    assert student.sampler is sampler
    assert not sampler.lock.locked()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": TransformersSampler()}, "sampler=TransformersSampler"),
        ({"sampler": VLLMSampler(sleep_level=1)}, "sleep_level=1"),
        ({"overlap": 2}, "overlap=2"),
        ({"attempts": "stored"}, "attempts='stored'"),
    ],
)
def test_what_cannot_be_sampled_ahead_is_refused(
    make_llama: Any, tokenizer: Any, tmp_path: Any, settings: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        fit(tmp_path, make_student(make_llama, tokenizer, **settings))


def test_a_loader_that_cannot_show_its_next_batch_is_refused(
    make_llama: Any, tokenizer: Any, tmp_path: Any
) -> None:
    with pytest.raises(TypeError, match="a DataLoader: it needs a training loader with `peek`"):
        fit(tmp_path, make_student(make_llama, tokenizer), data=LabData())
