"""Opening a data set, wherever it lies."""

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
        path: Hub name, folder (also one written by ``save_to_disk``), data file, or format.
        name: Configuration of the data set.
        data_files: For a path that names a format.

    Returns:
        A ``Dataset`` or ``DatasetDict``, memory-mapped.

    Raises:
        FileNotFoundError: A path that looks local and is not there.
    """
    import datasets

    if _saved(path):
        return datasets.load_from_disk(str(Path(path).expanduser()))
    where, data_files = _located(path, data_files)
    return datasets.load_dataset(where, name, data_files=data_files)


def open_stream(
    path: str, *, name: str | None = None, data_files: Any = None, split: str = "train"
) -> Any:
    """Open one split of a source without reading it.

    Args:
        path: See :func:`load_rows`.
        name: Configuration of the data set.
        data_files: For a path that names a format.
        split: The source's own name.

    Returns:
        A ``datasets.IterableDataset``, whose position can be saved.

    Raises:
        FileNotFoundError: A path that looks local and is not there.
    """
    import datasets

    if _saved(path):
        return load_split(load_rows(path), split, "train", path).to_iterable_dataset()
    where, data_files = _located(path, data_files)
    return datasets.load_dataset(where, name, data_files=data_files, split=split, streaming=True)


def load_split(source: Any, own: str, split: str, path: str) -> Any:
    """Take one split of an opened source.

    Args:
        source: A ``DatasetDict``, or a ``Dataset`` that stands for ``train``.
        own: The source's own name of the split.
        split: What it is to us, for the error.
        path: Of the source, for the error.

    Returns:
        The split's rows.

    Raises:
        ValueError: There is no such split.
    """
    if not isinstance(source, dict):
        source = {"train": source}
    if own not in source:
        raise ValueError(
            f"splits: {split}: {own!r} is no split of {path!r}; it has {', '.join(sorted(source))}."
        )
    return source[own]


def _saved(path: str) -> bool:
    """Whether the path is a folder that ``save_to_disk`` wrote."""
    local = Path(path).expanduser()
    return any((local / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _located(path: str, data_files: Any) -> tuple[str, Any]:
    """What ``load_dataset`` takes for a path: a file is a format with data files."""
    local = Path(path).expanduser()
    if local.suffix in _FORMATS:
        if not local.is_file():
            raise FileNotFoundError(f"path={path!r}: there is no such file.")
        return _FORMATS[local.suffix], str(local)
    if path.startswith((".", "/", "~")) and not local.exists():
        raise FileNotFoundError(f"path={path!r}: there is no such file or folder.")
    return (str(local) if local.exists() else path), data_files
