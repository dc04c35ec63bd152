"""A look at what the student wrote, what the critic said of it, and what it earned."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_sd.text.content import render_content
from lightning_sd.types import Rollout, TeacherView

COLUMNS = ("question", "attempt", "teacher sees", "reward", "advantage")


class SampleTable(Callback):
    """Prints some rollouts of the current step every so often, and logs them as text.

    Loggers with ``log_text`` (Weights & Biases) or TensorBoard's ``add_text`` get them too.

    Args:
        every_n_steps: Optimizer steps between tables.
        rows: Rollouts a table.

    Raises:
        ValueError: A number below 1.
    """

    def __init__(self, every_n_steps: int = 50, rows: int = 3) -> None:
        for name, value in (("every_n_steps", every_n_steps), ("rows", rows)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        self.every_n_steps, self.rows = every_n_steps, rows
        self._shown = 0

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show this step's first rollouts when it is time."""
        step = trainer.global_step
        if step == self._shown or step % self.every_n_steps:
            return
        self._shown = step
        report = outputs["step"]
        rows = [
            sample_row(rollout, view, advantages)
            for rollout, view, advantages in zip(
                report.rollouts[: self.rows], report.views, report.advantages, strict=False
            )
        ]
        _print(rows, step)
        _log(trainer, rows, step)


def sample_row(
    rollout: Rollout, view: TeacherView | None, advantages: tuple[float, ...] | None
) -> tuple[str, ...]:
    """One row of the table, in the order of ``COLUMNS``."""
    return (
        rollout.question.text,
        rollout.text + ("" if rollout.finished else " ..."),
        "(no teacher)" if view is None else render_content(view.messages[-1]["content"]),
        "" if rollout.verdict is None else f"{rollout.verdict.reward:g}",
        "" if not advantages else f"{sum(advantages) / len(advantages):+.2f}",
    )


def _print(rows: list[tuple[str, ...]], step: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Rollouts at step {step} (advantage: mean over tokens)", show_lines=True)
    for name in COLUMNS:
        short = name in ("reward", "advantage")
        table.add_column(name, justify="right" if short else "left", overflow="fold")
    for row in rows:
        # Text, not str: what a model wrote must not be read as rich's markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _log(trainer: Trainer, rows: list[tuple[str, ...]], step: int) -> None:
    text = "\n\n".join(
        "\n".join(f"    {name}: {cell}" for name, cell in zip(COLUMNS, row, strict=True))
        for row in rows
    )
    for logger in trainer.loggers:
        if hasattr(logger, "log_text"):
            logger.log_text("rollouts", columns=list(COLUMNS), data=[list(row) for row in rows])
        experiment: Any = getattr(logger, "experiment", None)
        if hasattr(experiment, "add_text"):
            experiment.add_text("rollouts", text, step)
