"""A rollback loads an earlier checkpoint of this run, and training goes on from it."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_sd import CollapseError, EMATeacher, LengthGuard, ReferenceSolution
from lightning_sd.callbacks.guards.rollback import check_rollback
from tests.stubs import LabData, equal, module, trainer, weights

BAD = (5, 6)
"""Steps with a collapsed length."""


class After(Callback):
    """Keeps the state after each step."""

    def __init__(self):
        self.weights, self.shadows, self.moments, self.rates = {}, {}, {}, {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        step, (optimizer,) = trainer.global_step, trainer.optimizers
        self.weights[step] = weights(pl_module.student)
        self.shadows[step] = {k: v.clone() for k, v in pl_module.teacher._shadow.items()}
        self.moments[step] = [state["exp_avg"].clone() for state in optimizer.state.values()]
        self.rates[step] = optimizer.param_groups[0]["lr"]


def collapse(student, bad=BAD):
    """Let the module log a collapsed length in some steps."""
    publish = student.publish_means

    def publish_means(means):
        length = 1.0 if student.trainer.global_step + 1 in bad else 10.0
        publish({**means, "length": length})

    student.publish_means = publish_means
    return student


def train(make_llama, tokenizer, folder, guard, *, bad=BAD, steps=8, **saving):
    student = module(
        make_llama(),
        tokenizer,
        teacher=EMATeacher(0.3),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    )
    settings = {"save_top_k": -1, "every_n_train_steps": 1, "filename": "{step}", **saving}
    after, saver = After(), ModelCheckpoint(folder / "ckpt", **settings)
    run = trainer(
        *(folder, ReferenceSolution(), guard, after, saver),
        max_steps=steps,
        enable_checkpointing=True,
    )
    run.fit(collapse(student, bad), datamodule=LabData(batch_size=2, train_size=32))
    return run, after


def test_the_state_is_that_of_the_checkpoint_and_the_run_goes_on(make_llama, tokenizer, tmp_path):
    guard = LengthGuard(low=0.5, window=2, action="rollback")
    with pytest.warns(UserWarning, match=r"Rolled back to .*step=4\.ckpt"):
        run, after = train(make_llama, tokenizer, tmp_path, guard)
    assert not equal(after.weights[5], after.weights[4])
    assert equal(after.weights[6], after.weights[4])
    assert equal(after.shadows[6], after.shadows[4])
    moments = zip(after.moments[6], after.moments[4], strict=True)
    assert all(torch.equal(new, old) for new, old in moments)
    assert not equal(after.weights[7], after.weights[6])
    # Steps and the schedule go on.
    assert run.global_step == 8
    assert after.rates[8] == pytest.approx(1e-2 * 0.9**8)
    saved = torch.load(tmp_path / "ckpt" / "step=6.ckpt", weights_only=True)
    assert torch.equal(
        saved["state_dict"]["student.model.norm.weight"], after.weights[4]["model.norm.weight"]
    )


def test_a_run_without_a_checkpoint_from_before_ends(make_llama, tokenizer, tmp_path):
    guard = LengthGuard(low=0.5, window=2, action="rollback")
    with pytest.raises(CollapseError, match="No checkpoint of this run from before step 5"):
        train(make_llama, tokenizer, tmp_path, guard, save_top_k=1)


def test_the_last_rollback_is_followed_by_a_stop(make_llama, tokenizer, tmp_path):
    guard = LengthGuard(low=0.5, window=2, action="rollback", max_rollbacks=1)
    with (
        pytest.warns(UserWarning, match="Rolled back"),
        pytest.raises(CollapseError, match="There were 1 rollback"),
    ):
        train(make_llama, tokenizer, tmp_path, guard, bad=(5, 6, 7, 8))


def test_damaged_checkpoints_and_those_of_other_runs_are_left_out(make_llama, tokenizer, tmp_path):
    folder = tmp_path / "ckpt"

    class Damage(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 5:
                (folder / "step=4.ckpt").write_bytes(b"half")
                for step in (1, 2, 3):
                    os.utime(folder / f"step={step}.ckpt", (0, 0))

    class Guard(LengthGuard, Damage):
        pass

    with pytest.raises(CollapseError, match="No checkpoint of this run"):
        train(make_llama, tokenizer, tmp_path, Guard(low=0.5, window=2, action="rollback"))


def test_a_rollback_needs_checkpoints_of_the_optimizer(make_llama, tokenizer, tmp_path):
    guard = LengthGuard(action="rollback")
    with pytest.raises(ValueError, match="needs a ModelCheckpoint"):
        train(make_llama, tokenizer, tmp_path, guard, save_weights_only=True)


def test_sharded_weights_are_refused(tmp_path):
    run = SimpleNamespace(strategy=ModelParallelStrategy(), checkpoint_callbacks=[])
    with pytest.raises(ValueError, match="does not support ModelParallelStrategy"):
        check_rollback(run, "LengthGuard")
