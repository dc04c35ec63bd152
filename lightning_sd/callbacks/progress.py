"""A progress bar for training by optimizer steps."""

from __future__ import annotations

import logging
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from lightning_sd.callbacks.monitor import StepMonitor

SHOWN = {
    "train/reward": ("reward", "{:.2f}"),
    "train/loss": ("loss", "{:.4f}"),
    "train/length": ("tokens", "{:.0f}"),
}
"""Metrics in the bar, with their label and format."""


class StepProgressBar(ProgressBar):
    """Show optimizer steps up to ``max_steps``, with reward, loss and length.

    The loss of a distillation objective is its divergence. With a
    :class:`~lightning_sd.callbacks.StepMonitor` among the callbacks, the bar names the phase that
    runs (rollout, evidence, scoring ...).
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._progress: Any = None
        self._task: Any = None
        self._monitor: StepMonitor | None = None
        self._redirected: list[tuple[logging.StreamHandler[Any], Any]] = []

    def disable(self) -> None:
        """Show nothing; called on all ranks but 0."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bar."""
        callbacks: list[Any] = getattr(trainer, "callbacks")  # noqa: B009 - untyped in Lightning
        self._monitor = next((c for c in callbacks if isinstance(c, StepMonitor)), None)
        total = float(trainer.estimated_stepping_batches)
        self._progress = self._build(None if total == float("inf") else total)
        before = sys.stderr
        self._progress.start()
        self._redirect_logs(before)
        self._update(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        self._update(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the bar."""
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the bar."""
        self._stop()

    def _build(self, total: float | None) -> Any:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            ProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        bar = self

        class PhaseColumn(ProgressColumn):
            """Names the running phase; the bar redraws itself several times per second."""

            max_refresh = 0.5

            def render(self, task: Any) -> Text:
                return Text(bar._monitor.phase if bar._monitor else "", style="dim")

        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            PhaseColumn(),
            disable=not self._enabled,
        )
        self._task = progress.add_task("step", total=total, metrics="")
        return progress

    def _update(self, trainer: Trainer) -> None:
        if self._progress is not None:
            text = describe_metrics(trainer.callback_metrics)
            self._progress.update(self._task, completed=trainer.global_step, metrics=text)

    def _redirect_logs(self, stream: Any) -> None:
        """Let log messages appear above the bar, not in its line.

        Rich replaces ``sys.stderr`` while a bar runs; log handlers keep the stream they began with.
        """
        for logger in map(logging.getLogger, (None, "lightning.pytorch", "lightning.fabric")):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(sys.stderr)
                    self._redirected.append((handler, stream))

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._redirected = []


def describe_metrics(metrics: Any) -> str:
    """Format the metrics of the bar.

    Args:
        metrics: Logged values by name.

    Example:
        >>> describe_metrics({"train/reward": 0.5, "train/length": 34.9})
        'reward 0.50  tokens 35'
    """
    return "  ".join(
        f"{label} {style.format(float(metrics[name]))}"
        for name, (label, style) in SHOWN.items()
        if name in metrics
    )
