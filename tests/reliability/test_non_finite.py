"""Nothing that is NaN or infinite is stepped on, trained on, or saved."""

import copy
import datetime
import json
import math
import re
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sd import EMATeacher, PolicyGradient, SnapshotTeacher
from lightning_sd.contexts import NoContext
from lightning_sd.modules.bad_steps import write_bad_step
from tests.stubs import LabData, SameAsStudent, equal, module, trainer, weights


def spoil(student, steps, value=float("inf")):
    """Make the gradient of the given optimizer steps infinite, by a hook on one parameter."""
    parameter = next(p for p in student.student.parameters() if p.requires_grad)
    parameter.register_hook(
        lambda grad: grad + value if student.trainer.global_step in steps else grad
    )


def start(make_llama, tokenizer, **kwargs):
    student = module(make_llama(), tokenizer, **kwargs)
    student.configure_model()
    return student


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_bad_gradient_changes_neither_weights_nor_optimizer_nor_teacher(
    make_llama, tokenizer, tmp_path, value
):
    student = start(make_llama, tokenizer, teacher=EMATeacher(0.5), optimizer=adam)
    spoil(student, {1}, value)
    states = []

    def record(run, student_module, *_):
        optimizer = copy.deepcopy(run.optimizers[0].state_dict()["state"])
        states.append((weights(student.student), optimizer, copy.deepcopy(student.teacher._shadow)))

    run = trainer(tmp_path, SameAsStudent(), _AtBatchEnd(record), max_steps=3)
    with pytest.warns(UserWarning, match=r"Optimizer step 1 was skipped \(loss .*not finite"):
        run.fit(student, datamodule=LabData())
    (first, first_state, first_ema), (second, second_state, second_ema), (third, _, third_ema) = (
        states
    )
    assert equal(first, second)
    assert not equal(second, third)
    assert equal(first_ema, second_ema)
    assert not equal(second_ema, third_ema)
    assert all(
        torch.equal(first_state[i][name], second_state[i][name])
        for i in first_state
        for name in first_state[i]
    )
    assert run.callback_metrics["train/skipped_steps"] == 1
    assert all(p.isfinite().all() for p in student.student.parameters())


def test_a_snapshot_teacher_does_not_count_a_skipped_step(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer, teacher=SnapshotTeacher(every=10))
    spoil(student, {0})
    trainer(tmp_path, SameAsStudent(), max_steps=3).fit(student, datamodule=LabData())
    assert student.teacher._steps == 2


def test_the_schedule_follows_the_steps_of_the_trainer(make_llama, tokenizer, tmp_path):
    def halve(optimizer):
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    student = start(make_llama, tokenizer, scheduler=halve)
    spoil(student, {1})
    run = trainer(tmp_path, SameAsStudent(), max_steps=3)
    run.fit(student, datamodule=LabData())
    assert run.global_step == 3
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_training_stops_after_the_limit_and_writes_the_batch(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer, max_bad_steps=2)
    spoil(student, {1, 2, 3})
    run = trainer(tmp_path, SameAsStudent(), max_steps=5)
    with pytest.raises(FloatingPointError, match=r"bad_step_2_rank_0.json. It was number 2 in a"):
        run.fit(student, datamodule=LabData(batch_size=2))
    assert all(p.isfinite().all() for p in student.student.parameters())
    assert {path.name for path in tmp_path.glob("*.json")} == {
        "bad_step_1_rank_0.json",
        "bad_step_2_rank_0.json",
    }
    found = json.loads((tmp_path / "bad_step_2_rank_0.json").read_text())
    assert "gradient not finite" in found["reason"]
    rows = found["micro_batches"][0]["rollouts"]
    assert len(rows) == 4
    for row in rows:
        assert row["question"]["id"]
        assert row["view"]["messages"]
        assert row["tokens"].keys() == {"loss", "student_logprobs", "entropy", "teacher_logprobs"}
        assert {len(values) for values in row["tokens"].values()} == {len(row["ids"])}


def test_a_batch_with_objects_of_the_users_own_is_written(tmp_path):
    """Extra columns hold what a data set gives, such as dates."""
    day = datetime.date(2026, 1, 2)
    path = write_bad_step(tmp_path, {"step": 3, "rank": 1}, [lambda: {"extra": {"day": day}}])
    assert json.loads(path.read_text()) == {
        "step": 3,
        "rank": 1,
        "micro_batches": [{"extra": {"day": "datetime.date(2026, 1, 2)"}}],
    }


def test_a_good_step_in_between_starts_the_count_over(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer, max_bad_steps=2)
    spoil(student, {0, 2})
    run = trainer(tmp_path, SameAsStudent(), max_steps=4)
    run.fit(student, datamodule=LabData())
    assert run.callback_metrics["train/skipped_steps"] == 2


def test_a_bad_micro_batch_skips_its_whole_window(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer)
    before = weights(student.student)
    spoil(student, {0})
    run = trainer(tmp_path, SameAsStudent(), max_steps=1, accumulate_grad_batches=2)
    run.fit(student, datamodule=LabData(batch_size=2))
    assert equal(before, weights(student.student))
    found = json.loads((tmp_path / "bad_step_0_rank_0.json").read_text())
    assert len(found["micro_batches"]) == 2


def test_a_bad_loss_with_a_good_gradient_is_skipped(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer)
    before, log_mean = weights(student.student), student.log_mean
    student.log_mean = lambda name, total, number: log_mean(
        name, math.nan if name == "loss" else total, number
    )
    trainer(tmp_path, SameAsStudent(), max_steps=1).fit(student, datamodule=LabData())
    assert equal(before, weights(student.student))
    assert "loss nan, gradient finite" in (tmp_path / "bad_step_0_rank_0.json").read_text()


class _AtBatchEnd(Callback):
    def __init__(self, function):
        self.function = function

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.function(trainer, pl_module, *args)


class _Rewards(LabData):
    """Gives each rollout the next of some rewards."""

    def __init__(self, *rewards):
        super().__init__(batch_size=2)
        self.rewards = rewards

    def evidence(self, rollouts, needs):
        return [
            replace(r, verdict=replace(r.verdict, reward=self.rewards[i % len(self.rewards)]))
            for i, r in enumerate(super().evidence(rollouts, needs))
        ]


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("attempts", ["sampled", "stored"])
def test_a_reward_is_refused_with_its_question(make_llama, tokenizer, tmp_path, reward, attempts):
    data = _Rewards(1.0, reward)
    data.attempts = ["7", "8"]
    student = start(
        make_llama, tokenizer, objective=PolicyGradient(scale="none"), attempts=attempts
    )
    name = re.escape(data.questions("train")[1 if attempts == "stored" else 0].id)
    with pytest.raises(ValueError, match=rf"reward={reward} of question '{name}'.*`verify`"):
        trainer(tmp_path, NoContext()).fit(student, datamodule=data)


class _Overflowing(PolicyGradient):
    def compute_advantages(self, rewards, groups):
        return rewards * 1e38 * 1e38


def test_an_advantage_is_refused_with_its_question(make_llama, tokenizer, tmp_path):
    data = _Rewards(0.0, 0.0, 1.0, 0.0)
    student = start(make_llama, tokenizer, objective=_Overflowing(scale="none"))
    name = re.escape(data.questions("train")[1].id)
    with pytest.raises(ValueError, match=rf"advantages=inf of question '{name}' \(reward 1.0\)"):
        trainer(tmp_path, NoContext()).fit(student, datamodule=data)


def test_a_checkpoint_of_bad_weights_is_refused_and_the_older_kept(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer)

    def break_weights(run, *_):
        if run.global_step == 2:
            next(student.student.parameters()).data[0, 0] = math.nan

    keep = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=1, save_last=True)
    run = trainer(
        tmp_path, SameAsStudent(), _AtBatchEnd(break_weights), keep, enable_checkpointing=True
    )
    with pytest.raises(
        FloatingPointError, match=r"No checkpoint is written: the weight '.*' is NaN"
    ):
        run.fit(student, datamodule=LabData())
    found = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert found == ["epoch=0-step=1.ckpt", "last.ckpt"]
    for name in found:
        saved = torch.load(tmp_path / "kept" / name, weights_only=True)
        assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_a_run_does_not_end_well_with_bad_weights(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer)

    def break_weights(run, *_):
        next(student.student.parameters()).data.fill_(math.nan)

    run = trainer(tmp_path, SameAsStudent(), _AtBatchEnd(break_weights), max_steps=1)
    with pytest.raises(FloatingPointError, match="Training ends with an error: the weight"):
        run.fit(student, datamodule=LabData())


@pytest.mark.parametrize("value", [0, -1])
def test_the_limit_is_at_least_one(make_llama, tokenizer, value):
    with pytest.raises(ValueError, match=f"max_bad_steps={value}: must be at least 1"):
        module(make_llama(), tokenizer, max_bad_steps=value)


def test_skipped_steps_survive_a_resume(make_llama, tokenizer, tmp_path):
    student = start(make_llama, tokenizer, max_bad_steps=2)
    spoil(student, {0})
    run = trainer(tmp_path, SameAsStudent(), max_steps=1)
    run.fit(student, datamodule=LabData())
    run.save_checkpoint(tmp_path / "one.ckpt")
    resumed = start(make_llama, tokenizer, max_bad_steps=2)
    spoil(resumed, {1})
    run = trainer(tmp_path, SameAsStudent(), max_steps=2)
    with pytest.raises(FloatingPointError, match="number 2 in a row"):
        run.fit(resumed, datamodule=LabData(), ckpt_path=tmp_path / "one.ckpt")
