"""What a run shows: measurements per step, and the bar."""

from __future__ import annotations

import csv
import io
import logging
import sys

import pytest
import rich
import torch
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from lightning_sd import ReferenceSolution
from lightning_sd.callbacks import SampleTable, StepMonitor, StepProgressBar
from lightning_sd.callbacks.monitor import PHASES, summarize_rollouts
from lightning_sd.types import Question, Rollout, Verdict
from tests.stubs import LabData, module, trainer


def rollout(question, reward, answer="1"):
    asked = Question(question, question, ())
    return Rollout(asked, (1, 2), "", 0, verdict=Verdict(reward, reward > 0, answer))


def test_rewards_spread_within_questions():
    rows = [rollout("a", 1.0), rollout("a", 0.0, None), rollout("b", 1.0), rollout("b", 1.0)]
    values = summarize_rollouts(rows, [(0.5, 1.5), (-1.0,), None, (2.0, 4.0)])
    assert values["reward_std"] == pytest.approx((0.5 + 0.0) / 2)
    assert values["no_answer"] == 0.25
    assert values["advantage_correct"] == pytest.approx(2.0)
    assert values["advantage_wrong"] == -1.0


def test_each_step_is_measured(make_llama, tokenizer, tmp_path):
    clipped = []
    student = module(make_llama(), tokenizer)
    before = student.configure_gradient_clipping

    def clip(optimizer, *args, **kwargs):
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        clipped.append(float(torch.nn.utils.get_total_norm(grads)))
        before(optimizer, *args, **kwargs)

    student.configure_gradient_clipping = clip
    data, monitor = LabData(batch_size=2), StepMonitor()
    run = trainer(
        *(tmp_path, ReferenceSolution(), monitor, StepProgressBar()),
        max_steps=3,
        accumulate_grad_batches=2,
        gradient_clip_val=1e-3,
        enable_progress_bar=True,
        logger=CSVLogger(tmp_path, "csv"),
        log_every_n_steps=1,
    )
    run.fit(student, datamodule=data)
    with next((tmp_path / "csv").rglob("metrics.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row["monitor/lr"]]
    assert [float(row["monitor/grad_norm"]) for row in rows] == pytest.approx(clipped)
    assert len(rows) == 3
    assert [float(row["monitor/lr"]) for row in rows] == pytest.approx([0.1] * 3)
    for row in rows:
        seconds = [float(row[f"monitor/seconds/{phase}"]) for phase in PHASES]
        assert all(value >= 0 for value in seconds)
        assert min(seconds[0], seconds[3], seconds[5]) > 0  # rollout, scoring, backward
        assert sum(seconds) <= float(row["monitor/step_seconds"]) + 1e-3
        assert float(row["monitor/peak_memory_mib"]) > 10
        assert float(row["monitor/tokens_per_second"]) > 0
    # All is as it was.
    assert "sample" not in vars(student)
    assert "evidence" not in vars(data)


def test_messages_stay_off_the_line_of_the_bar(make_llama, tokenizer, tmp_path, monkeypatch):
    """A log message that is written beside the bar would end in its line, or be erased."""
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    handler = logging.StreamHandler(screen)
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "handlers", [handler])
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(rich, "_console", console)
    bar = StepProgressBar()
    run = trainer(
        *(tmp_path, ReferenceSolution(), bar, SampleTable(every_n_steps=1)),
        max_steps=2,
        enable_progress_bar=True,
    )
    run.fit(module(make_llama(), tokenizer), datamodule=LabData(batch_size=2))
    lines = screen.getvalue().splitlines()
    for text in ("First batch:", "Rollouts at step 1"):
        (line,) = [line for line in lines if text in line]
        assert "step \x1b" not in line
    assert handler.stream is screen


def test_the_bar_counts_optimizer_steps(make_llama, tokenizer, tmp_path):
    bar = StepProgressBar()
    run = trainer(
        tmp_path,
        ReferenceSolution(),
        bar,
        max_steps=2,
        enable_progress_bar=True,
        accumulate_grad_batches=2,
    )
    run.fit(module(make_llama(), tokenizer), datamodule=LabData(batch_size=2))
    (task,) = bar._progress.tasks
    assert (task.completed, task.total) == (2, 2)
    assert "reward" in task.fields["metrics"]
    assert "loss" in task.fields["metrics"]
