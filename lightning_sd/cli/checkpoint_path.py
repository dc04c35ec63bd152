"""Find the checkpoint that ``ckpt_path`` names, on rank 0 for all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.callbacks.checkpoint_files import check_checkpoint, find_last_good

SEARCHED = ("last", "last_if_any", "last_good", "hpc")
"""Values of ``ckpt_path`` for which a rank looks into its file system."""


class AgreedCheckpoint(_CheckpointConnector):
    """Lets every rank restore the checkpoint that rank 0 has found.

    Lightning resolves ``last``, ``best`` and ``hpc`` on each rank. On nodes that see different
    folders, ranks would restore different checkpoints, or some of them none.
    """

    def resume_start(
        self, checkpoint_path: str | Path | None = None, weights_only: bool | None = None
    ) -> None:
        """Take rank 0's path; every rank calls it, with a path or without."""
        agreed = self.trainer.strategy.broadcast(checkpoint_path)
        super().resume_start(agreed, weights_only=weights_only)


def find_checkpoint(path: str | None, callbacks: Sequence[Any], rank: int) -> str | None:
    """Return the checkpoint that a run restores; None for a new run.

    Args:
        path: Value of ``ckpt_path``. ``last_if_any`` is ``last``, or None if there is none, for
            commands that ``torchrun`` or SLURM repeat after a failure.
        callbacks: The trainer's checkpoint callbacks.
        rank: Rank of this process. Only rank 0 looks for ``last`` and its like;
            :class:`AgreedCheckpoint` tells the others.

    Raises:
        FileNotFoundError: There is no checkpoint; Lightning would only warn, and go on without.
        DamagedCheckpointError: The checkpoint is damaged.
    """
    if rank > 0 and path in SEARCHED:
        return None
    if path == "last_if_any" and not list_last_checkpoints(callbacks):
        return None
    if path in ("last", "last_if_any"):
        path = str(find_last_checkpoint(callbacks))
    elif path == "last_good":
        path = str(find_last_good(*list_checkpoint_folders(callbacks)))
        rank_zero_info(f"ckpt_path=last_good: {path}")
    if path is not None and Path(path).is_file():
        check_checkpoint(Path(path))
    return path


def list_checkpoint_folders(callbacks: Sequence[Any]) -> list[Path]:
    """List the fixed folders of the checkpoint callbacks."""
    return [Path(c.dirpath) for c in callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]


def list_last_checkpoints(callbacks: Sequence[Any]) -> list[Path]:
    """List the ``last*.ckpt`` of the checkpoint callbacks."""
    return [p for folder in list_checkpoint_folders(callbacks) for p in folder.glob("last*.ckpt")]


def find_last_checkpoint(callbacks: Sequence[Any]) -> Path:
    """Return the newest ``last*.ckpt`` of the checkpoint callbacks.

    Args:
        callbacks: The trainer's checkpoint callbacks.

    Raises:
        FileNotFoundError: There is none.
    """
    checkpoints = list_last_checkpoints(callbacks)
    if not checkpoints:
        folders = [str(folder) for folder in list_checkpoint_folders(callbacks)]
        raise FileNotFoundError(
            "ckpt_path=last: no last*.ckpt in "
            f"{folders or 'any ModelCheckpoint with a fixed dirpath'}. "
            "Set ModelCheckpoint(dirpath=..., save_last=true), or leave ckpt_path out."
        )
    return max(checkpoints, key=lambda path: path.stat().st_mtime)
