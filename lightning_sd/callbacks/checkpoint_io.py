"""A Lightning plugin that writes checkpoints whole or not at all, and refuses damaged ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from lightning_sd.callbacks.checkpoint_files import (
    check_checkpoint,
    remove_leftovers,
    write_checkpoint,
)
from lightning_sd.callbacks.checkpoint_shards import is_sharded_checkpoint, join_shards


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes local checkpoints under a temporary name, verifies them, and renames them.

    Lightning's default writes to ``$TMPDIR`` and moves the file to its target, which is a copy if
    that is another disk: a kill or a full disk leaves half a file, after which the older checkpoint
    is deleted. This plugin writes on the target's own disk, reads the file back, and raises if
    anything is wrong, so that the older checkpoint is kept. Loading verifies the checksums first.

    The command line uses it by default. Paths with a protocol such as ``s3://`` are left to
    Lightning; object stores replace objects whole.

    Example::

        trainer = Trainer(plugins=[AtomicCheckpointIO()])  # any Lightning trainer
    """

    def __init__(self) -> None:
        self._cleaned: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; see :func:`~.checkpoint_files.write_checkpoint`."""
        local = _get_local_path(path)
        if local is None or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        self._clean(local.parent)
        write_checkpoint(checkpoint, local)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Verify and load a checkpoint, also one that FSDP2 wrote in shards.

        Raises:
            FileNotFoundError: There is no such file.
            DamagedCheckpointError: It is damaged; the message names the newest good one.
        """
        local = _get_local_path(path)
        if local is not None and is_sharded_checkpoint(local):
            return join_shards(local)
        if local is not None and local.is_file():
            self._clean(local.parent)
            check_checkpoint(local)
        return super().load_checkpoint(path, map_location, weights_only)

    def _clean(self, folder: Path) -> None:
        """Remove leftovers at the first use of a folder."""
        if folder not in self._cleaned:
            self._cleaned.add(folder)
            for part in remove_leftovers(folder):
                rank_zero_info(f"Removed {part}, an incomplete checkpoint of a killed process.")


def _get_local_path(path: str | Path) -> Path | None:
    scheme, separator, rest = str(path).partition("://")
    if not separator:
        return Path(path)
    return Path(rest) if scheme == "file" else None
