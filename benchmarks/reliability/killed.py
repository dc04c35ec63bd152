"""One training run that may be killed at a named moment, and what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import lightning_sd
from lightning_sd import (
    ArithmeticTask,
    AtomicCheckpointIO,
    CritiqueDataModule,
    CritiqueReflector,
    EMATeacher,
    ExactResume,
    FrozenTeacher,
    InsightCurator,
    LiveTeacher,
    PretrainedModel,
    Reflection,
    RuleCritic,
    SelfDistillModule,
    SnapshotTeacher,
    TransformersSampler,
    TrustRegionTeacher,
)
from lightning_sd.callbacks import checkpoint_files
from lightning_sd.models import LoRA

STEPS = 6
TEACHERS = {
    "frozen": FrozenTeacher,
    "live": LiveTeacher,
    "ema": lambda: EMATeacher(0.3),
    "snapshot": lambda: SnapshotTeacher(2),
    "trust_region": lambda: TrustRegionTeacher(0.3),
}
BATCH_PHASES = ("batch start", "evidence", "backward", "batch end")
STEP_PHASES = ("optimizer step", "teacher step", "checkpoint written", "checkpoint renamed")
PHASES = (*BATCH_PHASES, *STEP_PHASES)


@dataclass(frozen=True)
class Case:
    """One row of the kill matrix."""

    teacher: str
    accumulate: int
    dropout: float | None
    """Dropout of LoRA adapters; None: all weights are trained."""
    overlap: int
    workers: int

    @property
    def name(self) -> str:
        return "-".join(f"{name}={value}" for name, value in asdict(self).items())


class Kill(pl.Callback):
    """Kills its own process when a phase is reached for the n-th time."""

    def __init__(self, phase: str, number: int) -> None:
        self.phase, self.left = phase, number

    def reach(self, phase: str) -> None:
        self.left -= phase == self.phase
        if self.left <= 0 and phase == self.phase:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_start(self, *_: Any) -> None:
        self.reach("batch start")

    def on_before_backward(self, *_: Any) -> None:
        self.reach("backward")

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.reach("optimizer step")

    def on_train_batch_end(self, *_: Any) -> None:
        self.reach("batch end")

    def reach_inside(self, data: CritiqueDataModule, module: SelfDistillModule) -> None:
        """Reach the phases for which Lightning has no hook."""
        self._wrap(data, "evidence", "evidence", after=True)
        self._wrap(module.teacher, "after_step", "teacher step", after=False)
        self._wrap(checkpoint_files, "_drop_from_memory", "checkpoint written", after=True)
        self._wrap(checkpoint_files, "_sync_folder", "checkpoint renamed", after=True)

    def _wrap(self, owner: Any, name: str, phase: str, *, after: bool) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not after:
                self.reach(phase)
            result = function(*args, **kwargs)
            if after:
                self.reach(phase)
            return result

        setattr(owner, name, call)


class Rows(DummyLogger):
    """Appends each logged row to a file at once, as a killed process cannot do it later."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        # The cache counts hits for the misses of the killed process, and seconds are not repeated.
        kept = {k: v for k, v in metrics.items() if "critique_" not in k and k != "epoch"}
        with self.path.open("a") as file:
            file.write(json.dumps([step, kept]) + "\n")


def write_tiny_model(folder: Path) -> str:
    """Write a random model of one layer with the solver's tokenizer, whose steps take 20 ms."""
    solver = Path(lightning_sd.__file__).parent / "lab" / "solver"
    size = {"hidden_size": 32, "intermediate_size": 32, "head_dim": 16}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(solver, **size, **layers))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(solver).save_pretrained(folder)
    return str(folder)


def train(case: Case, model: str, folder: Path, kill: Kill | None) -> None:
    """Train from the newest checkpoint of the folder to the end, or to the kill."""
    seed = 1
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    lora = None if case.dropout is None else LoRA(r=2, dropout=case.dropout)
    module = SelfDistillModule(
        PretrainedModel(model, lora=lora),
        teacher=TEACHERS[case.teacher](),
        sampler=TransformersSampler(max_new_tokens=8),
        samples=2,
        overlap=case.overlap,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
        seed=seed,
    )
    data = CritiqueDataModule(
        ArithmeticTask(train_size=24, val_size=2, test_size=2),  # an epoch ends within the run
        RuleCritic(),
        cache_dir=str(folder / "critiques"),
        batch_size=2,
        num_workers=case.workers,
    )
    context = Reflection(CritiqueReflector(), InsightCurator(), max_prompt_tokens=300)
    saver = ModelCheckpoint(folder / "checkpoints", save_last=True, every_n_train_steps=1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        accumulate_grad_batches=case.accumulate,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=Rows(folder / "rows.jsonl"),
        callbacks=[context, ExactResume(), *([kill] if kill else []), saver],
        plugins=[AtomicCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if kill is not None:
        kill.reach_inside(data, module)
    last = folder / "checkpoints" / "last.ckpt"
    trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None)
    (folder / "digest.json").write_text(json.dumps(digest(trainer, module, context, folder)))


def digest(
    trainer: pl.Trainer, module: SelfDistillModule, context: Reflection, folder: Path
) -> dict[str, str]:
    """Hash the final weights, optimizer, teacher, schedule, context and log, each on its own."""
    rows: dict[str, dict[str, float]] = {}
    for line in (folder / "rows.jsonl").read_text().splitlines():
        step, metrics = json.loads(line)
        rows.setdefault(str(step), {}).update(metrics)
    return {
        "weights": _hash(module.student.state_dict()),
        "optimizer": _hash(trainer.optimizers[0].state_dict()),
        "teacher": _hash(module.teacher.state_dict()),
        "schedule": _hash(trainer.lr_scheduler_configs[0].scheduler.state_dict()),
        "context": _hash(context.state_dict()),
        "log": _hash(rows),
    }


def _hash(value: Any) -> str:
    sha = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, torch.Tensor):
            sha.update(item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(item, dict):
            for key in sorted(item, key=str):
                sha.update(str(key).encode())
                add(item[key])
        elif isinstance(item, (list, tuple)):
            for part in item:
                add(part)
        else:
            sha.update(repr(item).encode())

    add(value)
    return sha.hexdigest()
