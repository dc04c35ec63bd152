"""Resuming by the command line: changed settings are applied and named, and runs go on."""

from __future__ import annotations

import pytest
import torch

from lightning_sd.cli.main import main
from tests.cli.test_configs import CONFIGS, TINY
from tests.cli.test_main import SAVING

LONG = [word for word in TINY if "train_size" not in word and "max_epochs" not in word]
QUICK = [
    *["fit", "--config", str(CONFIGS / "quickstart.yaml"), *LONG, *SAVING],
    *["--data.init_args.task.init_args.train_size=8", "--trainer.max_epochs=1"],
]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parameters(cli):
    return {name: p.detach().clone() for name, p in cli.model.student.named_parameters()}


def test_a_run_that_max_steps_stopped_goes_on_as_if_unbroken():
    whole = main([*QUICK, "--trainer.max_steps=4", "--trainer.callbacks.dirpath=whole"])
    assert whole.trainer.global_step == 4
    main([*QUICK, "--trainer.max_steps=2"])
    resumed = main([*QUICK, "--trainer.max_steps=4", "--ckpt_path=last"])
    assert resumed.trainer.global_step == 4
    expected = parameters(whole)
    for name, value in parameters(resumed).items():
        torch.testing.assert_close(value, expected[name])


def test_the_last_step_is_in_last_ckpt():
    main([*QUICK, "--trainer.max_steps=3", "--trainer.callbacks.every_n_train_steps=2"])
    assert torch.load("ckpt/last.ckpt", weights_only=True)["global_step"] == 3


def test_a_finished_run_trains_nothing_and_says_so(caplog):
    main([*QUICK, "--trainer.max_steps=1"])
    resumed = main([*QUICK, "--trainer.max_steps=1", "--ckpt_path=last"])
    assert resumed.trainer.global_step == 1
    assert "at step 1, the last one: only what follows it is done" in caplog.text


def test_a_changed_rate_is_applied_and_named(caplog, capsys):
    main([*QUICK, "--trainer.max_steps=1"])
    capsys.readouterr()
    caplog.clear()
    rate = "--model.optimizer.lr=0.005"
    resumed = main([*QUICK, "--trainer.max_steps=2", "--ckpt_path=last", rate])
    (optimizer,) = resumed.trainer.optimizers
    assert optimizer.param_groups[0]["lr"] == 0.005
    # The moments were restored: the second step is counted as the second.
    steps = {float(state["step"]) for state in optimizer.state.values()}
    assert steps == {2.0}
    said = caplog.text + capsys.readouterr().err
    assert "AdamW.lr: 0.001 in the checkpoint, now 0.005." in said
    assert "model.init_args.optimizer.init_args.lr=0.005 (the checkpoint has 0.001)" in said
    assert "trainer.max_steps=2 (the checkpoint has 1)" in said


@pytest.mark.parametrize("total", [4, 8])
def test_a_changed_schedule_is_at_its_step(total):
    def schedule(number):
        return [
            "--model.scheduler=torch.optim.lr_scheduler.LinearLR",
            "--model.scheduler.start_factor=1.0",
            "--model.scheduler.end_factor=0.1",
            f"--model.scheduler.total_iters={number}",
        ]

    main([*QUICK, *schedule(4), "--trainer.max_steps=2"])
    resumed = main([*QUICK, *schedule(total), "--trainer.max_steps=3", "--ckpt_path=last"])
    rate = resumed.trainer.optimizers[0].param_groups[0]["lr"]
    assert rate == pytest.approx(1e-3 * (1 - 0.9 * 3 / total))
