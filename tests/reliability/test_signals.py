"""A signal ends a run with a checkpoint and the signal's exit code."""

import json
import signal
import subprocess
import sys

import pytest
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback

from lightning_sd import ReferenceSolution, SaveOnSignal
from lightning_sd.callbacks.signals import INTERRUPTED
from tests.stubs import LabData, module, trainer

CODES = {"SIGTERM": 143, "SIGUSR1": 138, "SIGINT": 130}


def start(folder, *words):
    command = [sys.executable, "-m", "tests.reliability.signal_run", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    result = start(folder, "NONE", "on_train_start", "1")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "moment", "number"),
    [
        ("SIGTERM", "on_train_batch_start", 3),
        ("SIGUSR1", "on_before_optimizer_step", 2),  # a validation is due after this batch
        ("SIGINT", "on_train_batch_end", 4),  # the last batch of an epoch
        ("SIGTERM", "on_validation_start", 1),
        ("SIGTERM", "on_validation_batch_end", 3),
    ],
)
def test_a_signal_saves_and_ends_with_its_code_and_the_resumed_run_is_the_unbroken_one(
    tmp_path, unbroken, name, moment, number
):
    result = start(tmp_path, name, moment, str(number))
    assert result.returncode == CODES[name], result.stderr
    assert f"Received {name}: after this batch a checkpoint is written" in result.stderr
    assert "resume with --ckpt_path last" in result.stderr
    assert [p.name for p in (tmp_path / "ckpt").iterdir()] == [INTERRUPTED]
    resumed = start(tmp_path, "NONE", "on_train_start", "1", "last")
    assert resumed.returncode == 0, resumed.stderr
    first, second = (torch.load(folder / "weights.pt") for folder in (unbroken, tmp_path))
    assert all(torch.equal(first[key], second[key]) for key in first)
    logs = [json.loads((folder / "rows.json").read_text()) for folder in (unbroken, tmp_path)]
    assert logs[0] == logs[1]
    assert not (tmp_path / "ckpt" / INTERRUPTED).exists()


class _Send(Callback):
    """Sends signals in the first batch, and none later."""

    def __init__(self, number, times=1):
        self.number, self.times = number, times

    def on_train_batch_start(self, *_):
        for _ in range(self.times):
            signal.raise_signal(self.number)
        self.times = 0


@pytest.mark.parametrize("name", CODES)
def test_a_second_signal_ends_at_once_without_a_checkpoint(make_llama, tokenizer, tmp_path, name):
    send = _Send(getattr(signal, name), 2)
    run = trainer(tmp_path, ReferenceSolution(), send, SaveOnSignal())
    with pytest.raises(SystemExit) as end:
        run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    assert end.value.code == CODES[name]
    assert not (tmp_path / INTERRUPTED).exists()


def test_handlers_are_given_back(make_llama, tokenizer, tmp_path):
    before = [signal.getsignal(getattr(signal, name)) for name in CODES]
    run = trainer(tmp_path, ReferenceSolution(), SaveOnSignal(), max_steps=1)
    run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    assert before == [signal.getsignal(getattr(signal, name)) for name in CODES]
    run = trainer(tmp_path, ReferenceSolution(), _Send(signal.SIGUSR1), SaveOnSignal())
    with pytest.raises(SystemExit) as end:
        run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    assert end.value.code == 138
    assert (tmp_path / INTERRUPTED).exists()
    assert before == [signal.getsignal(getattr(signal, name)) for name in CODES]


def test_slurm_s_signal_saves_and_requeues_through_lightning(
    make_llama, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    calls = []
    monkeypatch.setattr(
        "lightning.pytorch.trainer.connectors.signal_connector.call",
        lambda command: calls.append(command) or 0,
    )
    run = trainer(
        tmp_path,
        ReferenceSolution(),
        _Send(signal.SIGUSR1),
        SaveOnSignal(),
        plugins=[SLURMEnvironment(auto_requeue=True, requeue_signal=signal.SIGUSR1)],
    )
    with pytest.raises(SystemExit) as end:
        run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    assert end.value.code == 138
    assert calls == [["scontrol", "requeue", "42"]]
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["hpc_ckpt_1.ckpt"]
