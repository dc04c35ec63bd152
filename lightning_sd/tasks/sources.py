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

    local = Path(path).expanduser()
    if local.suffix in _FORMATS:
        if not local.is_file():
            raise FileNotFoundError(f"path={path!r}: there is no such file.")
        return datasets.load_dataset(_FORMATS[local.suffix], data_files=str(local))
    if local.is_dir() and any((local / f).exists() for f in ("dataset_dict.json", "state.json")):
        return datasets.load_from_disk(str(local))
    if path.startswith((".", "/", "~")) and not local.exists():
        raise FileNotFoundError(f"path={path!r}: there is no such file or folder.")
    where = str(local) if local.exists() else path
    return datasets.load_dataset(where, name, data_files=data_files)


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
