"""Load the weights, optimizer state and teacher of an earlier checkpoint into a running fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy

from lightning_sd.callbacks.checkpoint_files import iterate_good


def check_rollback(trainer: Trainer, guard: str) -> None:
    """Refuse settings under which there is nothing to roll back to.

    Args:
        trainer: The trainer.
        guard: Name of the guard, for the message.

    Raises:
        ValueError: No checkpoint callback saves the optimizer, or the weights are sharded.
    """
    if isinstance(trainer.strategy, ModelParallelStrategy):
        raise ValueError(
            f"{guard}: action=rollback does not support ModelParallelStrategy; choose stop."
        )
    if not any(not saver.save_weights_only for saver in _list_savers(trainer)):
        raise ValueError(
            f"{guard}: action=rollback needs a ModelCheckpoint with save_weights_only=false among "
            "trainer.callbacks; add one, or choose stop."
        )


def roll_back(trainer: Trainer, pl_module: LightningModule, step: int, began: float) -> Path | None:
    """Load the newest good checkpoint from before a step; called on all ranks.

    The step count, the position in the data, the schedule and the callbacks stay as they are.

    Args:
        trainer: The trainer, between two batches.
        pl_module: The module in training.
        step: Optimizer step before which the checkpoint must have been written.
        began: Time of the run's start, in seconds since the epoch: older files are of other runs.

    Returns:
        The checkpoint; None if there is none, and nothing was changed.
    """
    found = _find_checkpoint(trainer, step, began) if trainer.is_global_zero else None
    path: Path | None = trainer.strategy.broadcast(found)
    if path is None:
        return None
    checkpoint = trainer.strategy.load_checkpoint(path)
    trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
    for optimizer, saved in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
        # The settings, such as the learning rate, are those of the present step; the checkpoint
        # numbers the parameters in its own way.
        settings = [
            {**now, "params": then["params"]}
            for now, then in zip(
                optimizer.state_dict()["param_groups"], saved["param_groups"], strict=True
            )
        ]
        optimizer.load_state_dict({**saved, "param_groups": settings})
    # The teacher. The state of the process, such as its random numbers, is not that of a resume.
    pl_module.on_load_checkpoint({k: v for k, v in checkpoint.items() if k != "process"})
    return path


def _find_checkpoint(trainer: Trainer, step: int, began: float) -> Path | None:
    folders = {Path(saver.dirpath) for saver in _list_savers(trainer) if saver.dirpath}
    for path in iterate_good(folders):
        if path.stat().st_mtime < began:
            return None  # the rest are older
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if saved["global_step"] < step and "optimizer_states" in saved:
            return path
    return None


def _list_savers(trainer: Trainer) -> list[ModelCheckpoint]:
    return [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
