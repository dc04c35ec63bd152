"""Train under DDP and both kinds of FSDP2 in two processes, and write the weights of each run.

The runs of the grid are also made in one process, by test_sharding.py.

Started by test_sharding.py twice, with ``LOCAL_RANK`` 0 and 1: ``python sharded_runs.py FOLDER``.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, DistributedSampler

from lightning_sd import (
    ArithmeticTask,
    AtomicCheckpointIO,
    ContrastiveHints,
    ContrastivePolicy,
    CritiqueDataModule,
    EMATeacher,
    ExportPretrained,
    FrozenTeacher,
    FSDP2Strategy,
    LiveTeacher,
    LoRA,
    RuleCritic,
    SampleAhead,
    SelfDistillModule,
    SnapshotTeacher,
    StepAlignedCritique,
    SupervisedModule,
    TransformersSampler,
    TrustRegionTeacher,
)
from lightning_sd.models import PretrainedModel
from lightning_sd.models.sharding import to_full
from lightning_sd.types import QuestionBatch
from tests.stubs import CopySampler, LabData

TEACHERS: dict[str, Any] = {
    "frozen": FrozenTeacher,
    "ema": lambda: EMATeacher(0.3),
    "snapshot": lambda: SnapshotTeacher(2),
    "trust": lambda: TrustRegionTeacher(0.2),
    "live": LiveTeacher,
}
STRATEGIES: dict[str, Any] = {
    "one": lambda: "auto",
    "ddp": DDPStrategy,
    "model": lambda: ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
    "layers": lambda: FSDP2Strategy(gather="layers"),
    "hybrid": lambda: FSDP2Strategy(gather="layers", replicas=2),
}
SHARDED = ("model", "layers")
CHAIN = ("ddp", "layers", "model", "ddp")
"""A run that is resumed under another strategy after each step."""


class SilentRank(StepAlignedCritique):
    """Gives rank 1 no view in every other step."""

    def views(self, rollouts: Any) -> Any:
        views = super().views(rollouts)
        trainer = self._host.trainer  # type: ignore[union-attr]
        silent = trainer.global_rank == 1 and trainer.global_step % 2 == 0
        return [None] * len(views) if silent else views


class UnequalWriter(StepAlignedCritique):
    """Writes on one rank, with other weights, or another number of times than on the other."""

    def prepare_batch(self, rollouts: Any) -> Any:
        trainer = self._host.trainer  # type: ignore[union-attr]
        rank, step = trainer.global_rank, trainer.global_step
        sampler = TransformersSampler(max_new_tokens=3 if rank else 30)
        for i in range(1 + 2 * rank):
            teacher = (rank + step + i) % 2 == 0
            self.write([[{"role": "user", "content": "1+2"}]], sampler=sampler, teacher=teacher)
        if rank == 0:
            self.frozen_teacher_fingerprint()
        return list(rollouts)


class UnequalSampler(TransformersSampler):
    """Samples 3 tokens on rank 0 and 300 on rank 1."""

    def sample(self, *args: Any, **settings: Any) -> Any:
        sampler = TransformersSampler(max_new_tokens=(3, 300)[torch.distributed.get_rank()])
        return sampler.sample(*args, **{**settings, "stop_ids": ()})


class OrderedData(LabData):
    """Gives each step the same questions for any number of processes."""

    def train_dataloader(self) -> Any:
        questions, trainer = self.questions("train"), self.trainer
        ranks = (trainer.world_size, trainer.global_rank)
        return DataLoader(
            questions,
            self.batch_size,
            sampler=DistributedSampler(questions, *ranks, shuffle=False),
            collate_fn=QuestionBatch,
        )


class GrowingWindow(Callback):
    """Takes two optimizer steps with one micro-batch each, then one with two."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        trainer.accumulate_grad_batches = 1 if index < 2 else 2


class DyingRank(Callback):
    """Ends rank 1 without a word when it has sampled."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_rank == 1:
            os._exit(9)


def make_module(lora: bool = False, dtype: Any = "float64", **settings: Any) -> Any:
    torch.manual_seed(0)
    source = PretrainedModel(
        "package:lightning_sd/lab/solver",
        dtype=dtype,
        lora=LoRA(r=2) if lora else None,
        model_kwargs={"num_hidden_layers": 2},
    )
    defaults = {
        "sampler": TransformersSampler(max_new_tokens=6),
        "samples": 2,
        "eval_samples": 1,
        "seed": 3,
        "optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    }
    return SelfDistillModule(source, **{**defaults, **settings})


def make_trainer(strategy: Any, *callbacks: Any, **settings: Any) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 2,
        "max_steps": 2,
        "gradient_clip_val": 1.0,
        "logger": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), strategy=strategy, **{**defaults, **settings})


def read_weights(module: Any) -> dict[str, torch.Tensor]:
    named = module.student.named_parameters()
    return {name: to_full(p.detach()).cpu().clone() for name, p in named}


def fit(
    strategy: str,
    *callbacks: Any,
    accumulate: int = 1,
    steps: int = 2,
    **settings: Any,
) -> dict[str, torch.Tensor]:
    module = make_module(**settings)
    trainer = make_trainer(
        STRATEGIES[strategy](),
        *callbacks,
        accumulate_grad_batches=accumulate,
        max_steps=steps,
        devices=1 if strategy == "one" else 2,
    )
    batch_size = 4 if strategy == "one" else 2
    trainer.fit(module, datamodule=OrderedData(batch_size, train_size=16))
    return read_weights(module)


def fit_greedy(strategy: str, teacher: Any, **settings: Any) -> dict[str, torch.Tensor]:
    """Train without randomness, because ranks draw other random numbers than one process.

    A large epsilon keeps AdamW from turning rounding errors of small gradients into whole steps.
    """
    return fit(
        strategy,
        StepAlignedCritique(),
        GrowingWindow(),
        teacher=teacher(),
        steps=3,
        samples=1,
        sampler=TransformersSampler(max_new_tokens=4, temperature=0.0),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, eps=1e-3),
        **settings,
    )


def list_grid() -> dict[str, Callable[[str], dict[str, torch.Tensor]]]:
    """Return every teacher with LoRA and without, in both precisions, by name."""
    return {
        f"{name}-{'lora' if lora else 'full'}-{dtype}": partial(
            fit_greedy, teacher=teacher, lora=lora, dtype=dtype
        )
        for (name, teacher), lora, dtype in itertools.product(
            TEACHERS.items(), (False, True), ("float64", "float32")
        )
    }


def count_gathers() -> int:
    """Count how often the whole student is gathered in one step of two micro-batches."""
    gathered = []
    unshard = FSDPModule.unshard

    def count(module: Any, *args: Any, **settings: Any) -> Any:
        if hasattr(module, "lm_head"):
            gathered.append(module)
        return unshard(module, *args, **settings)

    setattr(FSDPModule, "unshard", count)  # noqa: B010 - for mypy
    fit("model", StepAlignedCritique(), teacher=EMATeacher(0.3), accumulate=2, steps=1)
    setattr(FSDPModule, "unshard", unshard)  # noqa: B010
    return len(gathered)


def fit_supervised(strategy: str) -> dict[str, torch.Tensor]:
    source = PretrainedModel("package:lightning_sd/lab/solver", dtype="float64")
    module = SupervisedModule(source, lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    trainer = make_trainer(STRATEGIES[strategy](), accumulate_grad_batches=2, limit_val_batches=1)
    trainer.fit(module, datamodule=LabData(batch_size=2, train_size=16))
    return read_weights(module)


def list_cases() -> dict[str, Callable[[str], dict[str, torch.Tensor]]]:
    """Return what is run under each strategy, by name."""

    def case(context: Any, teacher: Any, **settings: Any) -> Any:
        return lambda strategy: fit(strategy, context(), teacher=teacher(), **settings)

    ema, snapshot = TEACHERS["ema"], TEACHERS["snapshot"]
    return {
        **list_grid(),
        "silent_rank": case(SilentRank, ema, accumulate=2),
        "unequal_writes": case(UnequalWriter, FrozenTeacher, lora=True),
        "3_and_300_tokens": case(StepAlignedCritique, ema, sampler=UnequalSampler(), steps=1),
        "contrasts": case(ContrastiveHints, snapshot, objective=ContrastivePolicy()),
        "supervised": fit_supervised,
    }


def resume_chain(folder: Path, lora: bool) -> None:
    """Take one step under each strategy of the chain, and the same steps in one run under DDP.

    Three validation and test questions leave one rank without a batch.
    """
    name = "lora" if lora else "full"
    for step, strategy in enumerate((*CHAIN, "ddp"), 1):
        unbroken = step > len(CHAIN)
        link = folder / f"chain-{name}-{'unbroken' if unbroken else step}"
        task = ArithmeticTask(train_size=32, val_size=3, test_size=3)
        data = CritiqueDataModule(
            task, RuleCritic(), str(folder / "cache"), batch_size=2, eval_batch_size=1
        )
        module = make_module(lora, teacher=EMATeacher(0.3))
        trainer = make_trainer(
            STRATEGIES[strategy](),
            StepAlignedCritique(),
            ModelCheckpoint(link, "{step}", save_top_k=-1, every_n_train_steps=1),
            ExportPretrained(str(link / "export")),
            plugins=[AtomicCheckpointIO()],
            max_steps=len(CHAIN) if unbroken else step,
            enable_checkpointing=True,
            limit_val_batches=1.0,
            val_check_interval=1,
        )
        before = folder / f"chain-{name}-{step - 1}" / f"step={step - 1}.ckpt"
        resume = None if unbroken or step == 1 else str(before)
        trainer.fit(module, datamodule=data, ckpt_path=resume)
        save(read_weights(module), link / "weights.pt")
        if step < len(CHAIN):
            continue  # only the ends are compared
        answers = trainer.predict(module, datamodule=data)
        rows = [(o.rollouts[0].question.id, o.advantages[0]) for o in answers]
        torch.save(rows, link / f"predictions.{trainer.global_rank}.pt")


class Recorder(Callback):
    """Writes the weights and the teacher with which a run starts and ends."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, module: Any, when: str) -> None:
        state = {**read_weights(module), **module.teacher.state_dict()["shadow"]}
        save(state, self.path / f"{when}.pt")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.path.mkdir(exist_ok=True)
        self.record(pl_module, "start")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.record(pl_module, "end")


def change_size(folder: Path, devices: int, step: int) -> None:
    """Take one step with a number of processes, after the steps of others."""
    strategy = FSDP2Strategy("layers", save_distributed_checkpoint=True) if devices > 1 else "auto"
    path = folder / f"size-{step}"
    trainer = make_trainer(
        strategy,
        StepAlignedCritique(),
        ModelCheckpoint(path, "{step}", save_top_k=-1, every_n_train_steps=1),
        Recorder(path),
        plugins=[AtomicCheckpointIO()],
        devices=devices,
        max_steps=step,
        enable_checkpointing=True,
    )
    before = folder / f"size-{step - 1}" / f"step={step - 1}.ckpt"
    resume = str(before) if step > 1 else None
    data = LabData(batch_size=2, train_size=16)
    trainer.fit(make_module(teacher=EMATeacher(0.3)), datamodule=data, ckpt_path=resume)


class RolloutRecorder(Callback):
    """Keeps each batch's completions by question, and what is logged of their age."""

    def __init__(self) -> None:
        self.batches: list[dict[str, list[int]]] = []
        self.staleness: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        rollouts = outputs["step"].rollouts
        self.batches.append({r.question.id: list(r.ids) for r in rollouts})
        self.staleness.append(float(trainer.callback_metrics["train/staleness"]))


def sample_ahead(folder: Path, devices: int) -> None:
    """Train with rollouts that an engine in each rank samples one step ahead."""
    module = make_module(
        teacher=EMATeacher(0.3),
        samples=1,
        sampler=CopySampler(max_new_tokens=8, temperature=0.0),
        check_every=3,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
    )
    recorder = RolloutRecorder()
    strategy = "ddp" if devices > 1 else "auto"
    callbacks = (StepAlignedCritique(), SampleAhead(), recorder)
    trainer = make_trainer(strategy, *callbacks, devices=devices, max_steps=4, log_every_n_steps=1)
    task = ArithmeticTask(train_size=16, val_size=2, test_size=2)
    cache = str(folder / f"cache-{devices}")
    data = CritiqueDataModule(task, RuleCritic(), cache, batch_size=4 // devices)
    trainer.fit(module, datamodule=data)
    result = (recorder.batches, recorder.staleness, read_weights(module))
    torch.save(result, folder / f"ahead-{devices}.{trainer.global_rank}.pt")


def save(values: Any, path: Path) -> None:
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(values, path)


def main(folder: Path) -> None:
    for name, run in list_cases().items():
        for strategy in ("ddp", *SHARDED):
            save(run(strategy), folder / f"{name}.{strategy}.pt")
    within_budget = fit_greedy("model", TEACHERS["ema"], max_score_tokens=1)
    save(within_budget, folder / "ema-full-float64.budget.pt")
    hybrid = fit_greedy("hybrid", TEACHERS["ema"])
    save(hybrid, folder / "ema-full-float64.hybrid.pt")
    save(count_gathers(), folder / "gathers.pt")
    for lora in (False, True):
        resume_chain(folder, lora)
    change_size(folder, devices=2, step=2)
    sample_ahead(folder, devices=2)
    try:
        module = make_module(teacher=EMATeacher(0.3))
        trainer = make_trainer(FSDP2Strategy(gather="layers"), StepAlignedCritique(), DyingRank())
        trainer.fit(module, datamodule=LabData(batch_size=2, train_size=16))
    except RuntimeError as error:
        (folder / "error.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
