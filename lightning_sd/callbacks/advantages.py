"""Log where the teacher's signal falls, during training and after predict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torchmetrics import MetricCollection

from lightning_sd.metrics.advantages import build_advantage_metrics
from lightning_sd.metrics.measures import MEASURES, measure_rollout
from lightning_sd.metrics.style import STYLE_WORDS
from lightning_sd.metrics.wrong_steps import find_steps
from lightning_sd.types import StepOutput


class AdvantageAnalysis(Callback):
    """Log how much of the teacher's signal falls on wrong steps, the correct prefix and style.

    Every ``every_n_steps`` optimizer steps, all rollouts of that step (of all ranks and
    micro-batches) are measured, and the metrics of :mod:`lightning_sd.metrics.advantages` are
    logged as ``advantage/...``, with ``..._chance`` where a measure has a value by chance. In
    ``predict`` all rollouts count and a table is printed. A measure that no rollout defines is not
    logged.

    Args:
        every_n_steps: Optimizer steps between measurements, independent of ``log_every_n_steps``.
        words: Style words. Default: :data:`lightning_sd.metrics.STYLE_WORDS`.

    Raises:
        ValueError: ``every_n_steps`` is below 1.
    """

    def __init__(self, every_n_steps: int = 50, words: list[str] | None = None) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps}: must be at least 1.")
        self.every_n_steps = every_n_steps
        self.words: Sequence[str] = STYLE_WORDS if words is None else tuple(words)
        self.metrics: MetricCollection = build_advantage_metrics("advantage/")
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the step at which training starts."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure the micro-batches of every n-th step, and log after the last one."""
        done = trainer.global_step != self._step
        self._step = trainer.global_step
        step = self._step if done else self._step + 1
        if step % self.every_n_steps:
            return
        self._update(trainer, pl_module, outputs["step"])
        if done:
            means = self._compute()
            for name, value in means.items():
                pl_module.log(name, value, logger=False, rank_zero_only=False)
            # `log` would send the last values again at every later step.
            _send_means(trainer, means, self._step - 1)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the metrics."""
        self.metrics.reset()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure a batch of predictions."""
        self._update(trainer, pl_module, outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means and print them; ``log`` is not available in predict."""
        means = self._compute()
        _send_means(trainer, means, trainer.global_step)
        _print_means(means)

    def _update(self, trainer: Trainer, pl_module: LightningModule, output: StepOutput) -> None:
        module, source = pl_module, getattr(trainer, "datamodule", None)
        self.metrics.to(module.device)
        # Avoids torchmetrics' warning about metrics that were never updated.
        self.metrics.update({})
        for rollout, advantages in zip(output.rollouts, output.advantages, strict=True):
            if advantages is None:
                continue
            steps = find_steps(rollout, module.tokenizer, getattr(source, "task", None))
            self.metrics.update(measure_rollout(advantages, steps, self.words))

    def _compute(self) -> dict[str, float]:
        """Compute the means over all ranks, without those that nothing was counted for."""
        means = {name: float(value) for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        return {name: value for name, value in means.items() if not math.isnan(value)}


@rank_zero_only
def _send_means(trainer: Trainer, means: dict[str, float], step: int) -> None:
    """Send means to the loggers; steps count from 0, as in Lightning's own logs."""
    for logger in trainer.loggers:
        logger.log_metrics(means, step)


@rank_zero_only
def _print_means(means: dict[str, float]) -> None:
    from rich import get_console
    from rich.table import Table

    table = Table("Advantages", title="Where the teacher's signal falls")
    for column in ("value", "by chance"):
        table.add_column(column, justify="right")
    for name, measure in MEASURES.items():
        value, chance = means.get(f"advantage/{name}"), means.get(f"advantage/{name}_chance")
        if value is not None:
            table.add_row(measure.label, f"{value:.3f}", "" if chance is None else f"{chance:.3f}")
    get_console().print(table)
