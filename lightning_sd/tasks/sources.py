"""Open a data set from the Hub, a folder or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FORMATS = {
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
}


def load_rows(path: str, *, name: str | None = None, data_files: Any = None) -> Any:
    """Open a source with the ``datasets`` library.

    Args:
        path: Hub name, folder (``save_to_disk`` format included), data file, or format.
        name: Configuration of the data set.
        data_files: Files, if ``path`` names a format.

    Returns:
        A memory-mapped ``Dataset`` or ``DatasetDict``.

    Raises:
        FileNotFoundError: ``path`` looks like a local path and does not exist.
    """
    import datasets

    if _is_saved_dataset(path):
        return datasets.load_from_disk(str(Path(path).expanduser()))
    where, data_files = _locate_source(path, data_files)
    return datasets.load_dataset(where, name, data_files=data_files)


def open_stream(
    path: str, *, name: str | None = None, data_files: Any = None, split: str = "train"
) -> Any:
    """Open one split of a source as a stream.

    Args:
        path: As in :func:`load_rows`.
        name: Configuration of the data set.
        data_files: Files, if ``path`` names a format.
        split: The source's name of the split.

    Returns:
        A ``datasets.IterableDataset`` with a position that can be saved.

    Raises:
        FileNotFoundError: ``path`` looks like a local path and does not exist.
    """
    import datasets

    if _is_saved_dataset(path):
        return load_split(load_rows(path), split, "train", path).to_iterable_dataset()
    where, data_files = _locate_source(path, data_files)
    return datasets.load_dataset(where, name, data_files=data_files, split=split, streaming=True)


def load_split(source: Any, name: str, split: str, path: str) -> Any:
    """Return one split of an opened source.

    Args:
        source: A ``DatasetDict``, or a ``Dataset``, which counts as the split ``train``.
        name: The source's name of the split.
        split: ``train``, ``val`` or ``test``, for the error message.
        path: Path of the source, for the error message.

    Returns:
        A ``Dataset``.

    Raises:
        ValueError: There is no such split.
    """
    if not isinstance(source, dict):
        source = {"train": source}
    if name not in source:
        raise ValueError(
            f"splits: {split}: {name!r} is not a split of {path!r}. Choose one of "
            f"{', '.join(sorted(source))}."
        )
    return source[name]


def _is_saved_dataset(path: str) -> bool:
    """Tell whether the path is a folder written by ``save_to_disk``."""
    local = Path(path).expanduser()
    return any((local / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _locate_source(path: str, data_files: Any) -> tuple[str, Any]:
    """Return the ``path`` and ``data_files`` arguments of ``load_dataset``."""
    local = Path(path).expanduser()
    if local.suffix in _FORMATS:
        if not local.is_file():
            raise FileNotFoundError(f"path={path!r}: there is no such file. Check the path.")
        return _FORMATS[local.suffix], str(local)
    if path.startswith((".", "/", "~")) and not local.exists():
        raise FileNotFoundError(f"path={path!r}: there is no such file or folder. Check the path.")
    return (str(local) if local.exists() else path), data_files
