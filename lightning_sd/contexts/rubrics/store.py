"""Texts that a model wrote once, kept on disk: one JSON line each, only ever added."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_sd._serialize import replace_surrogates, write_canonical_json

Entry = dict[str, Any]


def text_key(**parts: Any) -> str:
    """A hash over everything that decides a text: who wrote it, and from what.

    Args:
        parts: Plain values.

    Example:
        >>> text_key(a=1, b="x") == text_key(b="x", a=1)
        True
    """
    return hashlib.sha256(replace_surrogates(write_canonical_json(parts)).encode()).hexdigest()


class TextStore:
    """Entries by key in a JSON lines file, which several processes of one machine may add to.

    Entries of one :meth:`put` come in one write under a lock. A line that a killed process left
    unfinished is passed over, so at most the last batch is lost. What other processes add is seen
    at the next :meth:`get`.

    Args:
        path: The file; its folder is made.

    Example:
        >>> import tempfile
        >>> store = TextStore(Path(tempfile.mkdtemp()) / "rubrics.jsonl")
        >>> store.put({"k": {"text": "a"}})
        >>> TextStore(store.path).get("k")
        {'text': 'a'}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._entries: dict[str, Entry] = {}
        self._read = 0

    def get(self, key: str) -> Entry | None:
        """The newest entry of a key, or None."""
        self._refresh()
        return self._entries.get(key)

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """All keys with their newest entries."""
        self._refresh()
        yield from self._entries.items()

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Add entries; all are on disk afterwards. A key's later entry replaces the one before."""
        if not entries:
            return
        # Not at the top: where there is no such lock, stored texts can still be read.
        import fcntl

        lines = [json.dumps({"key": key, **entry}) + "\n" for key, entry in entries.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Read and write: whether the last line is whole has to be looked up under the lock.
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            broken = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write((("\n" if broken else "") + "".join(lines)).encode())
            file.flush()
            os.fsync(file.fileno())

    def _refresh(self) -> None:
        """Read what has been added since, whole lines only."""
        if not self.path.exists() or self.path.stat().st_size <= self._read:
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                self._entries[entry.pop("key")] = entry
