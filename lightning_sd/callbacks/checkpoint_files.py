"""Write checkpoint files whole or not at all, and find damaged ones."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor

from lightning_sd.types import RunStoppedError

PART = ".part"
"""Ending of a checkpoint that is being written; its name begins with a dot."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DamagedCheckpointError(RunStoppedError):
    """Raised for a checkpoint file that is empty, incomplete or changed since it was written."""


def write_checkpoint(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint under a temporary name beside ``path``, verify it, and rename it.

    A file at ``path`` is replaced only by a complete file that was read back from the disk. The
    checksums are those of the zip format in which torch saves, so there is no second file.

    Args:
        checkpoint: What is saved.
        path: A local path. The folder is created if it is missing.

    Raises:
        OSError: The disk is full, or cannot be written to. The incomplete file is removed, and a
            file at ``path`` stays as it was.
        DamagedCheckpointError: What was read back is not what was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}{PART}")
    try:
        with part.open("wb") as file:
            _lock(file)  # tells other processes that this is no leftover
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
            _drop_from_memory(file)
            check_checkpoint(part)
            part.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        full = _find_full_disk(error)
        if full is not None:
            raise OSError(full.errno, _describe_full_disk(checkpoint, path, full)) from error
        raise


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove incomplete checkpoints that a killed process has left in a folder.

    Returns:
        The removed files. A file that another process is writing stays.
    """
    removed = []
    for part in folder.glob(f".*{PART}"):
        with part.open("rb") as file:
            if _lock(file):
                part.unlink(missing_ok=True)
                removed.append(part)
    return removed


def find_damage(path: Path) -> str | None:
    """Return what is wrong with a checkpoint file; None if all its checksums fit.

    Raises:
        OSError: There is no such file.
    """
    if path.stat().st_size == 0:
        return "it is empty"
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is None:
            # Python reads some headers that torch refuses; this reads headers, not values.
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError:
        return None  # whole, and holds objects that `weights_only` refuses
    except Exception as error:  # damaged headers give many kinds
        return f"it is incomplete or not a checkpoint: {str(error)[:200]}"
    return None if changed is None else f"the bytes of {changed} have changed"


def check_checkpoint(path: Path) -> None:
    """Refuse a damaged checkpoint, and name the newest good one in its folder.

    Raises:
        DamagedCheckpointError: The file is empty, incomplete, or has changed since it was written.
    """
    damage = find_damage(path)
    if damage is None:
        return
    good = next(iterate_good([path.parent]), None)
    remedy = (
        "There is no good one in its folder; start again without a checkpoint."
        if good is None
        else f"The newest good one in its folder is {good}: resume with --ckpt_path {good}, or "
        "with --ckpt_path last_good."
    )
    raise DamagedCheckpointError(f"{path}: this checkpoint is damaged, {damage}. {remedy}")


def find_last_good(*folders: str | Path) -> Path:
    """Find the newest checkpoint that is not damaged.

    Args:
        *folders: Folders with ``*.ckpt`` files, such as the ``dirpath`` of a ``ModelCheckpoint``.
            The time of modification decides which is the newest.

    Raises:
        FileNotFoundError: There is none.

    Example::

        trainer.fit(module, datamodule=data, ckpt_path=find_last_good("out/run/checkpoints"))
    """
    paths = [Path(folder) for folder in folders]
    good = next(iterate_good(paths), None)
    if good is None:
        damaged = [str(path) for path in _list_newest_first(paths)]
        raise FileNotFoundError(
            f"ckpt_path=last_good: no good checkpoint in {[str(path) for path in paths]} (damaged: "
            f"{damaged}). Leave ckpt_path out to start a new run."
        )
    return good


def iterate_good(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the checkpoints of some folders that are not damaged, the newest first."""
    return (path for path in _list_newest_first(folders) if find_damage(path) is None)


def _list_newest_first(folders: Iterable[Path]) -> list[Path]:
    found = {path for folder in folders for path in folder.glob("*.ckpt") if path.is_file()}
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def _lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed; False if another process has locked it."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _drop_from_memory(file: BinaryIO) -> None:
    """Ask the system to forget its copy, so that verification reads from the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power failure."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _find_full_disk(error: BaseException | None) -> OSError | None:
    """Find the error of a full disk, which torch hides behind one of its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return error
        error = error.__context__
    return None


def _describe_full_disk(checkpoint: Mapping[str, Any], path: Path, error: OSError) -> str:
    size, free = _count_bytes(checkpoint) / 2**20, shutil.disk_usage(path.parent).free / 2**20
    return (
        f"{path}: the checkpoint of {size:.1f} MiB could not be written ({error.strerror}; "
        f"{free:.1f} MiB are free). The incomplete file was removed and earlier checkpoints are "
        "kept. Free disk space or lower ModelCheckpoint.save_top_k, then resume"
    )


def _count_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_count_bytes, value.values()))
    return sum(map(_count_bytes, value)) if isinstance(value, (list, tuple)) else 0
