"""Show samples: what the student wrote, what the teacher saw, and the reward."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_sd.callbacks.tables import log_table
from lightning_sd.text.content import render_content
from lightning_sd.types import Rollout, TeacherView

COLUMNS = ("question", "attempt", "teacher sees", "reward", "advantage")


class SampleTable(Callback):
    """Print some rollouts of every n-th optimizer step, and log them as a table.

    TensorBoard, Weights & Biases, MLflow and Trackio show the table (``rollouts``) as well.

    Args:
        every_n_steps: Optimizer steps between tables.
        rows: Rollouts per table.

    Raises:
        ValueError: A number is below 1.
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
        """Show the first rollouts of every n-th step."""
        step = trainer.global_step
        if step == self._shown or step % self.every_n_steps:
            return
        self._shown = step
        report = outputs["step"]
        rows = [
            build_sample_row(rollout, view, advantages)
            for rollout, view, advantages in zip(
                report.rollouts[: self.rows], report.views, report.advantages, strict=False
            )
        ]
        _print_rows(rows, step)
        log_table(trainer.loggers, "rollouts", COLUMNS, rows, step)


def build_sample_row(
    rollout: Rollout, view: TeacherView | None, advantages: tuple[float, ...] | None
) -> tuple[str, ...]:
    """Build one row of the table.

    Args:
        rollout: The rollout.
        view: What the teacher saw; None without a teacher.
        advantages: Advantage of each token, in nats.

    Returns:
        One text per column of ``COLUMNS``.
    """
    return (
        rollout.question.text,
        rollout.text + ("" if rollout.finished else " ..."),
        "(no teacher)" if view is None else render_content(view.messages[-1]["content"]),
        "" if rollout.verdict is None else f"{rollout.verdict.reward:g}",
        "" if not advantages else f"{sum(advantages) / len(advantages):+.2f}",
    )


def _print_rows(rows: list[tuple[str, ...]], step: int) -> None:
    from rich import get_console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Rollouts at step {step} (advantage: mean over tokens)", show_lines=True)
    for name in COLUMNS:
        short = name in ("reward", "advantage")
        table.add_column(name, justify="right" if short else "left", overflow="fold")
    for row in rows:
        # Text instead of str, so that rich does not read a model's text as markup.
        table.add_row(*(Text(cell) for cell in row))
    get_console().print(table)
