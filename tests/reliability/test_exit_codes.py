"""A command that fails ends with one line and exit code 1, or 2 if a setting is wrong."""

import errno
import math
import os
from pathlib import Path

import pytest

from lightning_sd.callbacks import checkpoint_files
from lightning_sd.cli.run import run
from lightning_sd.modules import global_mean
from tests.cli.test_main import QUICK, SAVING

FIT = ["fit", *QUICK, *SAVING, "--trainer.enable_progress_bar=false"]


@pytest.fixture
def fail(tmp_path, monkeypatch, capsys):
    """Run a command that fails; return its exit code and its line."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        with pytest.raises(SystemExit) as end:
            run([*FIT, *words])
        lines = [ln for ln in capsys.readouterr().err.splitlines() if ln.startswith("error: ")]
        assert len(lines) == 1
        return end.value.code, lines[0]

    return call


def test_a_full_disk(fail, monkeypatch):
    def refuse(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_files.os, "fsync", refuse)
    code, line = fail()
    assert code == 1
    assert "ckpt/epoch=0-step=1.ckpt: the checkpoint of" in line
    assert os.listdir("ckpt") == []


def test_a_damaged_checkpoint(fail):
    Path("ckpt").mkdir()
    Path("ckpt/last.ckpt").write_bytes(b"")
    code, line = fail("--ckpt_path=last")
    assert code == 1
    assert "ckpt/last.ckpt: this checkpoint is damaged, it is empty" in line


def test_a_run_that_has_diverged(fail, monkeypatch):
    monkeypatch.setattr(global_mean, "compute_gradient_norm", lambda grads: math.inf)
    code, line = fail("--model.init_args.max_bad_steps=1")
    assert code == 1
    assert "bad_step_0_rank_0.json" in line
    assert not Path("ckpt").exists()


def test_a_missing_checkpoint_is_a_wrong_setting(fail):
    assert fail("--ckpt_path=last")[0] == 2
