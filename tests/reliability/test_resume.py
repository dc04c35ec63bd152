"""Runs that were killed and resumed equal the unbroken run bit for bit."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_sd import (
    ArithmeticTask,
    AtomicCheckpointIO,
    CritiqueDataModule,
    EMATeacher,
    LoRA,
    ReferenceSolution,
)
from lightning_sd.models import ModelSource
from lightning_sd.models.lora import add_lora
from lightning_sd.modules.random_state import get_random_state, set_random_state
from tests.stubs import equal, module, trainer, weights

STEPS = 4


@dataclass(frozen=True)
class WithDropout(ModelSource):
    """A model in memory whose adapters keep their dropout."""

    model: Any
    tokenizer: Any

    def load(self):
        return self.model.train(), self.tokenizer


class Crash(Callback):
    """Raises when a batch starts, as a kill between two batches would end the process."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.batch:
            raise InterruptedError


class Rows(DummyLogger):
    """Keeps what is logged by step."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def log_metrics(self, metrics, step):
        timed = ("seconds", "epoch")
        kept = {name: value for name, value in metrics.items() if not name.endswith(timed)}
        self.rows.setdefault(step, {}).update(kept)


class Noise(Callback):
    """Draws from every global generator in each batch, as a user's augmentation would."""

    def __init__(self):
        self.drawn = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.drawn[trainer.fit_loop.total_batch_idx] = (
            torch.rand(1).item(),
            np.random.rand(),
            random.random(),
            np.random.randn(),
            random.gauss(0, 1),
        )


def make_student(make_llama, tokenizer, lora=None):
    torch.manual_seed(7)
    model = make_llama()
    settings = {
        "teacher": EMATeacher(0.3),
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        "scheduler": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    }
    student = module(model, tokenizer, **settings)
    if lora is not None:
        student.source = WithDropout(add_lora(model, lora), tokenizer)
    return student


def run(
    student, folder, rows, noise, *callbacks, accumulate=1, workers=0, resume=False, steps=STEPS
):
    """Train to the end or to a crash; a checkpoint at each optimizer step."""
    saver = ModelCheckpoint(folder / "ckpt", save_last=True, every_n_train_steps=1)
    fit = trainer(
        folder,
        ReferenceSolution(),
        noise,
        saver,
        *callbacks,
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=True,
        logger=Rows(rows),
        log_every_n_steps=1,
        plugins=[AtomicCheckpointIO()],
    )
    task = ArithmeticTask(train_size=12, val_size=2, test_size=2)
    data = CritiqueDataModule(task, batch_size=2, num_workers=workers)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    fit.fit(student, datamodule=data, ckpt_path=folder / "ckpt" / "last.ckpt" if resume else None)
    return fit


def run_with_kills(make, folder, kills, **settings):
    """Train with a crash at each of some batches, and resume each time."""
    rows, noise, resume = {}, Noise(), False
    for kill in kills:
        with pytest.raises(InterruptedError):
            run(make(), folder, rows, noise, Crash(kill), resume=resume, **settings)
        resume = True
    student = make()
    fit = run(student, folder, rows, noise, resume=resume, **settings)
    return fit, student, rows, noise.drawn


def assert_equal_runs(first, second):
    (fit, student, rows, drawn), (other_fit, other, other_rows, other_drawn) = first, second
    assert equal(weights(student.student), weights(other.student))
    assert equal(student.teacher._shadow, other.teacher._shadow)
    state, other_state = (f.optimizers[0].state_dict()["state"] for f in (fit, other_fit))
    for i in state:
        assert all(torch.equal(state[i][name], other_state[i][name]) for name in state[i])
    assert rows == other_rows
    assert drawn == other_drawn


@pytest.mark.parametrize(
    ("accumulate", "kills"),
    [
        (1, (2,)),
        (1, (1, 2, 3)),
        (4, (6, 7)),  # two in one window: the second resume starts from a mid-window checkpoint
        (4, (5, 6, 7, 9)),
        (3, (2, 4, 5)),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_between_batches(make_llama, tokenizer, tmp_path, accumulate, kills, workers):
    def make():
        return make_student(make_llama, tokenizer)

    settings = {"accumulate": accumulate, "workers": workers}
    unbroken = run_with_kills(make, tmp_path / "unbroken", (), **settings)
    if kills[0] < accumulate:  # there is no checkpoint before the first optimizer step
        with pytest.raises(InterruptedError):
            run(make(), tmp_path / "none", {}, Noise(), Crash(kills[0]), **settings)
        kills = kills[1:]
    assert_equal_runs(unbroken, run_with_kills(make, tmp_path / "broken", kills, **settings))


@pytest.mark.parametrize(("accumulate", "kills"), [(1, (2,)), (4, (6, 7))])
def test_lora_with_dropout(make_llama, tokenizer, tmp_path, accumulate, kills):
    def make():
        return make_student(make_llama, tokenizer, LoRA(r=2, dropout=0.5))

    unbroken = run_with_kills(make, tmp_path / "unbroken", (), accumulate=accumulate)
    broken = run_with_kills(make, tmp_path / "broken", kills, accumulate=accumulate)
    assert_equal_runs(unbroken, broken)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_crash_between_a_checkpoint_and_its_log_loses_no_row(
    make_llama, tokenizer, tmp_path, accumulate
):
    def make():
        return make_student(make_llama, tokenizer)

    unbroken = run_with_kills(make, tmp_path / "unbroken", (), accumulate=accumulate)
    rows, noise, student = {}, Noise(), make()

    def crash(*_):  # Lightning calls it after the callbacks that save, before it logs
        if student.trainer.global_step == 2:
            raise InterruptedError

    student.on_train_batch_end = crash
    with pytest.raises(InterruptedError):
        run(student, tmp_path / "broken", rows, noise, accumulate=accumulate)
    assert sorted(rows) == [0]
    resumed = make()
    fit = run(resumed, tmp_path / "broken", rows, noise, accumulate=accumulate, resume=True)
    assert_equal_runs(unbroken, (fit, resumed, rows, noise.drawn))


def test_random_state_is_taken_up_where_it_was():
    def draw():
        return torch.rand(2).tolist(), np.random.randn(3).tolist(), random.gauss(0, 1)

    draw()
    state = get_random_state(torch.device("cpu"))
    first = draw()
    set_random_state(state, torch.device("cpu"))
    assert draw() == first


def test_another_number_of_processes_is_said(make_llama, tokenizer, tmp_path):
    student = make_student(make_llama, tokenizer)
    run(student, tmp_path, {}, Noise(), steps=1)
    path = tmp_path / "ckpt" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["process"]["ranks"] *= 2
    torch.save(saved, path)
    with pytest.warns(UserWarning, match="written by 2 process"):
        run(make_student(make_llama, tokenizer), tmp_path, {}, Noise(), resume=True)
