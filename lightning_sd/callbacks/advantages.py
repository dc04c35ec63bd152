"""Localization and style drift of the teacher's signal, logged while training."""

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
    """Tells where the teacher's signal falls: on the wrong steps, on the correct prefix, on style.

    Every so many optimizer steps all rollouts of that step (on all ranks and micro-batches) are
    analysed, and the figures of :mod:`lightning_sd.metrics.advantages` are logged as
    ``advantage/...``, each beside ``..._chance`` where there is one. In ``predict`` all rollouts
    count, and a table is printed. A figure that is defined for none of the rollouts is not logged.

    Args:
        every_n_steps: Optimizer steps between analyses, whatever ``log_every_n_steps`` is.
        words: Style words; None: :data:`.analysis.style.STYLE_WORDS`.

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
        """Start at the step at which training starts."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the micro-batches of a step whose turn it is, and log after the last."""
        done = trainer.global_step != self._step
        self._step = trainer.global_step
        step = self._step if done else self._step + 1
        if step % self.every_n_steps:
            return
        self._update(trainer, pl_module, outputs["step"])
        if done:
            found = self._compute()
            for name, value in found.items():
                pl_module.log(name, value, logger=False, rank_zero_only=False)
            # Through `log`, loggers would get the last values again at each later step.
            _log(trainer, found, self._step - 1)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what training left."""
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
        """Take in a batch of predictions."""
        self._update(trainer, pl_module, outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the figures to the loggers, which ``log`` does not reach here, and print them."""
        found = self._compute()
        _log(trainer, found, trainer.global_step)
        _show(found)

    def _update(self, trainer: Trainer, pl_module: LightningModule, output: StepOutput) -> None:
        module, source = pl_module, getattr(trainer, "datamodule", None)
        self.metrics.to(module.device)
        # Metrics that were never updated warn when they are read.
        self.metrics.update({})
        for rollout, advantages in zip(output.rollouts, output.advantages, strict=True):
            if advantages is None:
                continue
            steps = find_steps(rollout, module.tokenizer, getattr(source, "task", None))
            self.metrics.update(measure_rollout(advantages, steps, self.words))

    def _compute(self) -> dict[str, float]:
        """Over all ranks; what nothing was counted for is left out, on every rank alike."""
        found = {name: float(value) for name, value in self.metrics.compute().items()}
        self.metrics.reset()
        return {name: value for name, value in found.items() if not math.isnan(value)}


@rank_zero_only
def _log(trainer: Trainer, found: dict[str, float], step: int) -> None:
    """Steps count from 0 for loggers, as Lightning's own do."""
    for logger in trainer.loggers:
        logger.log_metrics(found, step)


@rank_zero_only
def _show(found: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("Advantages", title="Where the teacher's signal falls")
    for column in ("value", "by chance"):
        table.add_column(column, justify="right")
    for name, figure in MEASURES.items():
        value, chance = found.get(f"advantage/{name}"), found.get(f"advantage/{name}_chance")
        if value is not None:
            table.add_row(figure.label, f"{value:.3f}", "" if chance is None else f"{chance:.3f}")
    Console().print(table)
