"""The values that an optimizer step logs: those of this step, all of them, also after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def get_unlogged_row(trainer: Any) -> dict[str, Any]:
    """Return what Lightning logs next; it logs a batch after callbacks have saved checkpoints.

    Args:
        trainer: A trainer that fits.

    Returns:
        The logger's step, and the values by name. Empty if nothing is about to be logged.
    """
    loop, connector = trainer.fit_loop.epoch_loop, trainer._logger_connector
    batch = loop.batch_progress.current
    is_in_batch = batch.processed > batch.completed
    if not is_in_batch or loop._should_accumulate() or not connector.should_update_logs:
        return {}
    values = {name: float(value) for name, value in connector.metrics["log"].items()}
    return {
        "step": loop._batches_that_stepped,
        "values": {"epoch": trainer.current_epoch, **values},
    }


def log_row(trainer: Any, row: Mapping[str, Any]) -> None:
    """Log what :func:`get_unlogged_row` returned; loggers may hold the same row already."""
    if row:
        trainer._logger_connector.log_metrics(dict(row["values"]), step=row["step"])


def forget_values(trainer: Any, names: Iterable[str]) -> None:
    """Forget values that an earlier step logged and this one did not; Lightning logs them again."""
    results = trainer.fit_loop.epoch_loop._results
    for name in names:
        results.pop(f"on_before_optimizer_step.{name}", None)
