"""Store texts that a model wrote once: an append-only JSON lines file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_sd._serialize import replace_surrogates, write_canonical_json

Entry = dict[str, Any]


def make_text_key(**parts: Any) -> str:
    """Hash everything that determines a text: the writer and its prompt.

    Args:
        **parts: Plain values, by name.

    Example:
        >>> make_text_key(a=1, b="x") == make_text_key(b="x", a=1)
        True
    """
    return hashlib.sha256(replace_surrogates(write_canonical_json(parts)).encode()).hexdigest()


class TextStore:
    """Entries by key in a JSON lines file that several processes of one machine may extend.

    Each :meth:`put` is one write under a lock. A line that a killed process left incomplete is
    skipped, so at most the last batch is lost. Entries of other processes are seen at the next
    :meth:`get`.

    Args:
        path: The file; its folder is created when needed.

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
        """Return the newest entry of a key, or None."""
        self._refresh()
        return self._entries.get(key)

    def iterate(self) -> Iterator[tuple[str, Entry]]:
        """Yield all keys with their newest entries."""
        self._refresh()
        yield from self._entries.items()

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Add entries and wait until they are on disk. A newer entry replaces an older one."""
        if not entries:
            return
        # Imported here because Windows has no fcntl; there, stored texts can still be read.
        import fcntl

        lines = [json.dumps({"key": key, **entry}) + "\n" for key, entry in entries.items()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Opened for reading too: whether the last line is complete is checked under the lock.
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = file.seek(0, os.SEEK_END)
            broken = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write((("\n" if broken else "") + "".join(lines)).encode())
            file.flush()
            os.fsync(file.fileno())

    def _refresh(self) -> None:
        """Read the complete lines that were added since the last call."""
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
