"""Two ranks (gloo): equal teachers from different random adapters, sums, and guards that agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, sys
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_sd import EMATeacher, LengthGuard, LoRA, SelfDistillModule, StepAlignedCritique
from lightning_sd.rollout import TransformersSampler
from lightning_sd.models import PretrainedModel
from lightning_sd.teachers.shadow import fingerprint
from tests.stubs import LabData

class Data(LabData):
    def counters(self):
        return {"asked": 5.0, "copied": (1.0 + self.trainer.global_rank, 4.0)}

class Guard(LengthGuard):
    # Only rank 1 sees a collapse.
    def measure(self, trainer, *rest):
        return 1.0 if (trainer.global_rank, trainer.global_step) == (1, 3) else 10.0

class Weights(Callback):
    def on_train_batch_end(self, trainer, module, *rest):
        steps[trainer.global_step] = sum(float(p.double().sum()) for p in module.parameters())

logged, teachers, steps = [], [], {}

class Module(SelfDistillModule):
    def publish_means(self, means):
        logged.append(dict(means))
        super().publish_means(means)

    def on_train_start(self):
        super().on_train_start()
        teachers.append(fingerprint(self.teacher._shadow))

module = Module(
    PretrainedModel("package:lightning_sd/lab/solver", lora=LoRA(r=2)),
    teacher=EMATeacher(0.1),
    sampler=TransformersSampler(max_new_tokens=8),
    samples=2,
    seed=3,
)
trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=3, logger=False,
                  accumulate_grad_batches=2, limit_val_batches=0, num_sanity_val_steps=0,
                  enable_progress_bar=False, enable_model_summary=False,
                  callbacks=[StepAlignedCritique(), Guard(window=1, action="rollback"), Weights(),
                             ModelCheckpoint("ckpt", save_top_k=-1, every_n_train_steps=1)])
trainer.fit(module, datamodule=Data(batch_size=2, train_size=16))
json.dump({"teacher": teachers, "logged": logged, "steps": steps},
          open(f"rank{trainer.global_rank}.json", "w"))
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "two.py").write_text(SCRIPT)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, str(folder / "two.py")]
    subprocess.run(command, check=True, cwd=folder, env=environment, timeout=300)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_teachers_are_equal_though_each_rank_draws_its_own_adapter(ranks: Any) -> None:
    assert ranks[0]["teacher"] == ranks[1]["teacher"]


@pytest.mark.slow
def test_counts_are_summed_and_shares_averaged(ranks: Any) -> None:
    means = ranks[0]["logged"][0]
    assert means["asked"] == 2 * 2 * 5  # two ranks, two micro-batches
    assert means["copied"] == pytest.approx((1 + 2) / (4 + 4))
    assert means == ranks[1]["logged"][0]


@pytest.mark.slow
def test_ranks_roll_back_together_if_one_of_them_sees_a_collapse(ranks: Any) -> None:
    for rank in ranks:
        assert rank["steps"]["3"] == rank["steps"]["2"] == ranks[0]["steps"]["2"]
        assert rank["steps"]["2"] != rank["steps"]["1"]
