"""Train under DDP and under FSDP2 in two processes, and write the weights of each run.

Started by test_sharding.py on two ranks: ``python sharded_runs.py FOLDER``.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from lightning_sd import (
    ContrastiveHints,
    ContrastivePolicy,
    EMATeacher,
    FrozenTeacher,
    LiveTeacher,
    LoRA,
    SelfDistillModule,
    SnapshotTeacher,
    StepAlignedCritique,
    TransformersSampler,
    TrustRegionTeacher,
)
from lightning_sd.models import PretrainedModel
from lightning_sd.models.sharding import to_full
from lightning_sd.modules.strategy import FSDP2Strategy
from tests.stubs import LabData

TEACHERS: dict[str, Any] = {
    "frozen": FrozenTeacher,
    "ema": lambda: EMATeacher(0.3),
    "snapshot": lambda: SnapshotTeacher(1),
    "trust": lambda: TrustRegionTeacher(0.2),
    "live": LiveTeacher,
}
STRATEGIES: dict[str, Any] = {
    "ddp": DDPStrategy,
    "model": lambda: ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1),
    "layers": lambda: FSDP2Strategy(gather="layers"),
}


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
        rank, step = self._host.trainer.global_rank, self._host.trainer.global_step  # type: ignore[union-attr]
        prompts = [[{"role": "user", "content": "1+2"}]]
        for i in range(1 + 2 * rank):
            sampler = TransformersSampler(max_new_tokens=3 if rank else 30)
            self.write(prompts, sampler=sampler, teacher=(rank + step + i) % 2 == 0)
        if rank == 0:
            self.frozen_teacher_fingerprint()
        return list(rollouts)


def run(strategy: str, lora: bool, accumulate: int, context: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    source = PretrainedModel(
        "package:lightning_sd/lab/solver",
        dtype="float64",
        lora=LoRA(r=2) if lora else None,
        model_kwargs={"num_hidden_layers": 2},
    )
    module = SelfDistillModule(
        source,
        sampler=TransformersSampler(max_new_tokens=6),
        samples=2,
        seed=3,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        **settings,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=STRATEGIES[strategy](),
        max_steps=2,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        logger=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[context],
    )
    trainer.fit(module, datamodule=LabData(batch_size=2, train_size=16))
    student = module.student
    return {name: to_full(p.detach()).cpu().clone() for name, p in student.named_parameters()}


def main(folder: Path) -> None:
    cases: dict[str, Any] = {}
    for name, lora, accumulate in itertools.product(TEACHERS, (False, True), (1, 2)):
        settings = {"teacher": TEACHERS[name]()}
        cases[f"{name}-{'lora' if lora else 'full'}-{accumulate}"] = (
            lora,
            accumulate,
            StepAlignedCritique(),
            settings,
        )
    cases["silent_rank"] = (False, 2, SilentRank(), {"teacher": EMATeacher(0.3)})
    cases["unequal_writes"] = (True, 1, UnequalWriter(), {"teacher": FrozenTeacher()})
    contrast = {"objective": ContrastivePolicy(), "teacher": SnapshotTeacher(1)}
    cases["contrasts"] = (False, 1, ContrastiveHints(), contrast)
    for name, (lora, accumulate, context, settings) in cases.items():
        for strategy in STRATEGIES:
            if strategy != "ddp":
                settings = {**settings, "teacher": _copy(settings["teacher"])}
            weights = run(strategy, lora, accumulate, _copy(context), **settings)
            if torch.distributed.get_rank() == 0:
                torch.save(weights, folder / f"{name}.{strategy}.pt")


def _copy(part: Any) -> Any:
    """Make a fresh part with the same settings."""
    from lightning_sd._serialize import build, describe

    if type(part).__module__ == "__main__":
        return type(part)()
    return build(describe(part))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
