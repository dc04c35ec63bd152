"""Train from Python with a context and a metric of your own: ``python examples/python_api.py``."""

from __future__ import annotations

from functools import partial

import torch
from lightning.pytorch import Callback, Trainer
from torchmetrics import MeanMetric

from lightning_sd import (
    ArithmeticTask,
    CritiqueDataModule,
    Distillation,
    EMATeacher,
    SelfDistillModule,
    TeacherContext,
    TransformersSampler,
)


class FirstStep(TeacherContext):
    """Show the teacher only the first step of the reference solution."""

    template = "{question}\nHere is a reference solution:\n{step}\nNow solve it."
    cut_fields = ("step",)

    def fields(self, rollout):
        """Return the first step, or None if there is no reference."""
        step, end, _ = (rollout.question.reference or "").partition("</step_1>")
        return {"step": step + end} if end else None


class FinishedShare(Callback):
    """Log the share of training rollouts that end by themselves."""

    def __init__(self):
        self.metric = MeanMetric()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        """Read the step's rollouts."""
        self.metric.update([float(rollout.finished) for rollout in outputs["step"].rollouts])

    def on_train_end(self, trainer, pl_module):
        """Print the mean over the run."""
        print(f"finished rollouts: {100 * self.metric.compute():.1f}%")


def main(max_steps: int = 20) -> dict[str, float]:
    """Train, then measure Avg@4 and its relatives on validation questions."""
    module = SelfDistillModule(
        "package:lightning_sd/lab/solver",
        objective=Distillation(kind="js"),
        teacher=EMATeacher(rate=0.05),
        sampler=TransformersSampler(max_new_tokens=64),
        samples=4,
        eval_samples=4,
        optimizer=partial(torch.optim.AdamW, lr=3e-4),
    )
    data = CritiqueDataModule(ArithmeticTask(train_size=320, val_size=32), batch_size=16)
    trainer = Trainer(
        max_steps=max_steps,
        callbacks=[FirstStep(), FinishedShare()],
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    (logged,) = Trainer(logger=False).validate(module, datamodule=data)
    return logged


if __name__ == "__main__":
    main()
