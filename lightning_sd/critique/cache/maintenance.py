"""Summarize, verify and merge critique caches, and convert them to and from parquet files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_sd.critique.cache.cache import CritiqueCache, resolve_cache_file
from lightning_sd.critique.cache.records import (
    BATCH,
    CacheEntry,
    convert_from_row,
    convert_to_row,
    find_faults,
    read_entries,
    split_into_batches,
    write_entries,
)


def summarize_cache(path: str | Path) -> dict[str, Any]:
    """Count what a cache holds.

    Args:
        path: Folder or file of the cache.

    Returns:
        Plain values: the number of critiques and questions, the bytes on disk, usable critiques by
        case, refused critiques by reason, the critics with their number of critiques, the tokens
        and seconds spent, and when the first and the last critique were written (seconds since
        1970).

    Raises:
        FileNotFoundError: There is no cache at ``path``.
    """
    cache = open_existing_cache(path)
    query = cache.database.connection.execute
    number, tokens, seconds, first, last = query(
        "SELECT count(*), sum(tokens), sum(seconds), min(created), max(created) FROM critiques"
    ).fetchone()
    cases = query('SELECT "case", count(*) FROM critiques WHERE refused IS NULL GROUP BY 1')
    refused = query("SELECT refused, count(*) FROM critiques WHERE refused IS NOT NULL GROUP BY 1")
    critics = query(
        "SELECT c.identity, count(*) FROM critiques k JOIN critics c ON c.id = k.critic GROUP BY 1"
    )
    return {
        "path": str(cache.path),
        "critiques": number,
        "questions": query("SELECT count(*) FROM questions").fetchone()[0],
        "bytes": sum(file.stat().st_size for file in cache.path.parent.glob(f"{cache.path.name}*")),
        "cases": dict(cases.fetchall()),
        "refused": dict(refused.fetchall()),
        "critics": [{**json.loads(identity), "critiques": count} for identity, count in critics],
        "tokens": tokens or 0,
        "seconds": seconds or 0.0,
        "first": first,
        "last": last,
    }


def verify_cache(path: str | Path) -> list[str]:
    """Check every page, key and checksum of a cache.

    Each key is computed again from the critic's identity and the request, so a critique that is
    stored under the key of another request is found.

    Args:
        path: Folder or file of the cache.

    Returns:
        One line per fault; an empty list if the cache is intact.

    Raises:
        FileNotFoundError: There is no cache at ``path``.
    """
    cache = open_existing_cache(path)
    pages = cache.database.connection.execute("PRAGMA integrity_check")
    faults = [f"database: {line}" for (line,) in pages if line != "ok"]
    return faults + [f"{key.hex()}: {reason}" for key, reason in find_faults(cache)]


def merge_caches(target: str | Path, sources: Sequence[str | Path]) -> dict[str, int]:
    """Add the critiques of other caches to one cache, for example those of other nodes.

    If several caches have an answer to the same request, the target's answer is kept, otherwise the
    answer of the first source. An answer replaces a refusal.

    Args:
        target: Folder or file of the cache to add to. It is created if it is missing.
        sources: Folders or files of the caches to read. They are not changed.

    Returns:
        The number of usable critiques added from each source, by path.

    Raises:
        FileNotFoundError: One of the sources does not exist.
        ValueError: The target is one of the sources.
    """
    target_file = resolve_cache_file(target).resolve()
    if target_file in {resolve_cache_file(source).resolve() for source in sources}:
        raise ValueError(f"target={str(target)!r}: it is one of the sources. Name another target.")
    opened = [open_existing_cache(source) for source in sources]
    cache = CritiqueCache(target)
    added = {}
    for source in opened:
        before = _count_usable(cache)
        for batch in split_into_batches(read_entries(source)):
            write_entries(cache, batch)
        added[str(source.path)] = _count_usable(cache) - before
    return added


def export_cache(path: str | Path, out: str | Path) -> int:
    """Write a cache to a parquet file for ``datasets``, one row per critique.

    The columns include those that :class:`~lightning_sd.tasks.DatasetTask` can map (``question``,
    ``reference``, ``answer``, ``attempt``, ``finished``, ``critique``) and everything else in the
    cache, so :func:`import_cache` restores the same cache. To share the file:
    ``load_dataset("parquet", data_files=out).push_to_hub(...)``.

    Args:
        path: Folder or file of the cache.
        out: The parquet file to write.

    Returns:
        The number of rows.

    Raises:
        FileNotFoundError: There is no cache at ``path``.
    """
    pa, pq = _import_arrow()
    cache, number = open_existing_cache(path), 0
    schema = _build_schema(pa)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(str(out), schema) as writer:
        for batch in split_into_batches(read_entries(cache)):
            rows = [convert_to_row(entry) for entry in batch]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            number += len(rows)
    return number


def import_cache(path: str | Path, source: str | Path) -> int:
    """Add the critiques of a parquet file that :func:`export_cache` wrote to a cache.

    The whole file is checked before the first critique is written.

    Args:
        path: Folder or file of the cache. It is created if it is missing.
        source: The parquet file.

    Returns:
        The number of usable critiques that were added.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, lacks a column, or has a row with a wrong value.
    """
    for _ in _read_exported(source):
        pass
    cache = CritiqueCache(path)
    before = _count_usable(cache)
    for batch in split_into_batches(_read_exported(source)):
        write_entries(cache, batch)
    return _count_usable(cache) - before


def open_existing_cache(path: str | Path) -> CritiqueCache:
    """Open a cache without creating one.

    Raises:
        FileNotFoundError: There is no cache at ``path``.
    """
    if not resolve_cache_file(path).is_file():
        raise FileNotFoundError(f"{resolve_cache_file(path)}: there is no critique cache.")
    return CritiqueCache(path)


def _read_exported(source: str | Path) -> Iterator[CacheEntry]:
    """Yield the entries of a file that :func:`export_cache` wrote; see :func:`import_cache`."""
    pa, pq = _import_arrow()
    number = 0
    try:
        file = pq.ParquetFile(str(source))
        missing = sorted(set(_build_schema(pa).names) - set(file.schema_arrow.names))
        if missing:
            raise ValueError(f"the columns {missing} are missing.")
        for batch in file.iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                number += 1
                yield _convert(row, number)
    except FileNotFoundError:
        raise
    except (ValueError, OSError, pa.ArrowException) as error:
        raise ValueError(
            f"{source}: {error} Name an undamaged file of `critique export`."
        ) from error


def _convert(row: dict[str, Any], number: int) -> CacheEntry:
    try:
        return convert_from_row(row)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error


def _count_usable(cache: CritiqueCache) -> int:
    query = "SELECT count(*) FROM critiques WHERE refused IS NULL"
    return int(cache.database.connection.execute(query).fetchone()[0])


def _import_arrow() -> tuple[Any, Any]:
    """Import pyarrow only when it is needed, because the import is slow."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    return pyarrow, pyarrow.parquet


def _build_schema(pa: Any) -> Any:
    """Return the columns of :func:`~lightning_sd.critique.cache.records.convert_to_row`."""
    text, integer, real = pa.string(), pa.int64(), pa.float64()
    numbers = pa.list_(integer)
    return pa.schema(
        {
            **dict.fromkeys(("id", "question", "reference", "answer", "attempt"), text),
            **dict.fromkeys(("correct", "finished"), pa.bool_()),
            **dict.fromkeys(("critique", "case"), text),
            **dict.fromkeys(("copied", "changed", "added"), numbers),
            "refused": text,
            "tokens": integer,
            **dict.fromkeys(("seconds", "created"), real),
            "asked": integer,
            "critic": text,
        }
    )
