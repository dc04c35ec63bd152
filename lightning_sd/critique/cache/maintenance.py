"""Looking after a critique cache: numbers, checks, merging, moving it to and from data sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_sd.critique.cache.cache import CritiqueCache, cache_file
from lightning_sd.critique.cache.entries import (
    BATCH,
    add,
    batched,
    entries,
    faults,
    from_row,
    to_row,
)


def stats(path: str | Path) -> dict[str, Any]:
    """What a cache holds.

    Args:
        path: The cache's folder or file.

    Returns:
        Plain values: numbers of critiques and questions, bytes on disk, usable critiques by case,
        refusals by reason, the critics with their numbers, tokens and seconds spent, and when the
        first and the last critique were written (seconds since 1970).

    Raises:
        FileNotFoundError: There is no cache.
    """
    cache = open_cache(path)
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


def verify(path: str | Path) -> list[str]:
    """Check every page, key and checksum of a cache.

    A key is worked out again from the critic's identity and the request, so a critique that stands
    where another's should is found.

    Args:
        path: The cache's folder or file.

    Returns:
        What is wrong, one line a finding; empty: all is well.

    Raises:
        FileNotFoundError: There is no cache.
    """
    cache = open_cache(path)
    pages = cache.database.connection.execute("PRAGMA integrity_check")
    found = [f"database: {line}" for (line,) in pages if line != "ok"]
    return found + [f"{key.hex()}: {reason}" for key, reason in faults(cache)]


def merge(target: str | Path, sources: Sequence[str | Path]) -> dict[str, int]:
    """Bring the critiques of other caches into one, for instance those of other nodes.

    Where several have an answer to the same request, the target's, else the first source's, stays;
    an answer goes before a refusal.

    Args:
        target: Cache to be added to; made if it is missing.
        sources: Folders or files; they are only read.

    Returns:
        How many usable critiques each source brought, by its path.

    Raises:
        FileNotFoundError: A source that is not there.
        ValueError: The target is among the sources.
    """
    if cache_file(target).resolve() in {cache_file(source).resolve() for source in sources}:
        raise ValueError(f"target={str(target)!r} is one of the sources; name another.")
    opened = [open_cache(source) for source in sources]
    cache = CritiqueCache(target)
    brought = {}
    for source in opened:
        before = _usable(cache)
        for batch in batched(entries(source)):
            add(cache, batch)
        brought[str(source.path)] = _usable(cache) - before
    return brought


def export(path: str | Path, out: str | Path) -> int:
    """Write a cache as a parquet file that ``datasets`` reads, one row a critique.

    The columns are those that :class:`~lightning_sd.tasks.DatasetTask` can map (``question``,
    ``reference``, ``answer``, ``attempt``, ``finished``, ``critique``) and all else that the cache
    knows, so that :func:`import_` gives the same cache back. To share it:
    ``load_dataset("parquet", data_files=out).push_to_hub(...)``.

    Args:
        path: The cache's folder or file.
        out: The parquet file.

    Returns:
        The number of rows.

    Raises:
        FileNotFoundError: There is no cache.
    """
    pa, pq = _arrow()
    cache, number = open_cache(path), 0
    schema = _schema(pa)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(str(out), schema) as writer:
        for batch in batched(entries(cache)):
            rows = [to_row(entry) for entry in batch]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            number += len(rows)
    return number


def import_(path: str | Path, source: str | Path) -> int:
    """Read critiques that :func:`export` wrote into a cache.

    Args:
        path: Cache to be added to; made if it is missing.
        source: The parquet file.

    Returns:
        How many usable critiques are new.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file lacks a column.
    """
    pa, pq = _arrow()
    file = pq.ParquetFile(str(source))
    missing = sorted(set(_schema(pa).names) - set(file.schema_arrow.names))
    if missing:
        raise ValueError(f"{source} is no export of a critique cache: it lacks {missing}.")
    cache = CritiqueCache(path)
    before = _usable(cache)
    for batch in file.iter_batches(batch_size=BATCH):
        add(cache, [from_row(row) for row in batch.to_pylist()])
    return _usable(cache) - before


def open_cache(path: str | Path) -> CritiqueCache:
    """Open a cache that must be there.

    Raises:
        FileNotFoundError: It is not.
    """
    if not cache_file(path).is_file():
        raise FileNotFoundError(f"There is no critique cache at {cache_file(path)}.")
    return CritiqueCache(path)


def _usable(cache: CritiqueCache) -> int:
    query = "SELECT count(*) FROM critiques WHERE refused IS NULL"
    return int(cache.database.connection.execute(query).fetchone()[0])


def _arrow() -> tuple[Any, Any]:
    """Imported when needed: it is slow, and ``datasets`` brings it along."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    return pyarrow, pyarrow.parquet


def _schema(pa: Any) -> Any:
    """The columns of :func:`~lightning_sd.critique.cache.entries.to_row`."""
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
