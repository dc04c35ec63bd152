"""Critiques on disk: what a critic has said once is never asked again.

One SQLite file, shared by any number of processes of one machine. An entry is only ever added, and
a refused one replaced by a later answer to the same request.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sd._serialize import canonical_json, clean, identity_digest
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.database import Database
from lightning_sd.critique.cache.keys import SCHEMA, Key, request_key, request_parts
from lightning_sd.types import Critique

FILE_NAME = "critiques.sqlite"

_TABLES = """
CREATE TABLE critics (
  id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, identity TEXT NOT NULL);
CREATE TABLE questions (
  id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL,
  question TEXT NOT NULL, reference TEXT, answer TEXT);
CREATE TABLE critiques (
  key BLOB NOT NULL UNIQUE, critic INTEGER NOT NULL, question INTEGER NOT NULL,
  attempt TEXT NOT NULL, correct INTEGER NOT NULL, finished INTEGER NOT NULL,
  text TEXT NOT NULL, "case" TEXT NOT NULL, steps TEXT NOT NULL, refused TEXT,
  tokens INTEGER NOT NULL, seconds REAL NOT NULL, created REAL NOT NULL, asked INTEGER NOT NULL,
  checksum BLOB NOT NULL);
CREATE TABLE claims (
  key BLOB PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID
"""
_VALUE = 'text, "case", steps, refused, tokens, seconds, created, asked'
# An answer stays for ever; a refusal gives way to an answer, and to one after more questions.
_INSERT = f"""
INSERT INTO critiques (key, critic, question, attempt, correct, finished, {_VALUE}, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
text = excluded.text, "case" = excluded."case", steps = excluded.steps, refused = excluded.refused,
tokens = excluded.tokens, seconds = excluded.seconds, created = excluded.created,
asked = excluded.asked, checksum = excluded.checksum
WHERE critiques.refused IS NOT NULL
AND (excluded.refused IS NULL OR excluded.asked > critiques.asked)
"""
_CHUNK = 500
"""Keys a statement; SQLite's limit was 999 for long."""


@dataclass(frozen=True)
class CachedCritique:
    """One entry of the cache."""

    critique: Critique
    created: float
    """Seconds since 1970."""
    asked: int = 1
    """How often the critic was asked: again if its answer was refused."""

    def settled(self, asks: int) -> bool:
        """Whether it stands: an answer, or a refusal after ``asks`` attempts."""
        return self.critique.refused is None or self.asked >= asks


class CritiqueCache:
    """Critiques by :func:`~lightning_sd.critique.cache.keys.critique_key`, in one SQLite file.

    Several processes (ranks, loader workers, two trainings at once) may use one file at the same
    time, and an object may be forked or pickled. The file must lie on a local disk.

    Args:
        path: The file, or a folder in which it is (or will be) ``critiques.sqlite``.

    Raises:
        ValueError: The file is something else, or was written by another version.

    Example:
        >>> import tempfile
        >>> from lightning_sd.types import Critique, Question, Verdict
        >>> from lightning_sd.critique.base import CritiqueRequest
        >>> cache = CritiqueCache(tempfile.mkdtemp())
        >>> request = CritiqueRequest(Question("1", "1+1?", ()), "3", Verdict(0.0, False))
        >>> [key] = cache.put_many({"critic": "me"}, [(request, Critique("2", "D"))])
        >>> cache.get_many([key])[key].critique.text
        '2'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = cache_file(path)
        self.database = Database(self.path, tables=_TABLES, version=SCHEMA)

    def __len__(self) -> int:
        return int(self.database.connection.execute("SELECT count(*) FROM critiques").fetchone()[0])

    def get_many(self, keys: Sequence[Key]) -> dict[Key, CachedCritique]:
        """Look up many keys at once.

        Args:
            keys: Any number, repeats allowed.

        Returns:
            The entries that are there, by key.
        """
        found = {}
        for chunk in _chunks(list(dict.fromkeys(keys))):
            marks = ",".join("?" * len(chunk))
            rows = self.database.connection.execute(
                f"SELECT key, {_VALUE} FROM critiques WHERE key IN ({marks})", chunk
            )
            found.update({row[0]: _from_row(row[1:]) for row in rows})
        return found

    def put_many(
        self,
        identity: Mapping[str, Any],
        items: Sequence[tuple[CritiqueRequest, Critique]],
        *,
        asked: Sequence[int] | None = None,
        created: Sequence[float] | None = None,
    ) -> list[Key]:
        """Write many critiques in one transaction: all of them are there afterwards, or none.

        Args:
            identity: Of the critic that wrote them.
            items: Each with the request that it answers.
            asked: How often the critic was asked for each; default: once.
            created: When each was written, in seconds since 1970; default: now.

        Returns:
            Their keys. What the cache had already stays as it was, unless it was a refusal and this
            is an answer, or has been asked for more often.
        """
        asked = [1] * len(items) if asked is None else asked
        created = [time.time()] * len(items) if created is None else created
        digest = identity_digest(identity).hex()
        parts = [request_parts(request) for request, _ in items]
        keys = [request_key(digest, part) for part in parts]
        with self.database.writing() as connection:
            critic = self._critic(digest, identity)
            for i, (key, part) in enumerate(zip(keys, parts, strict=True)):
                request, critique = items[i]
                row = _to_row(critique, created[i], asked[i])
                place = (critic, self._question(request.question.id, part), part["attempt"])
                verdict = (part["correct"], part["finished"])
                connection.execute(_INSERT, (key, *place, *verdict, *row, checksum(key, row)))
        return keys

    def settled(self, keys: Sequence[Key], asks: int = 1) -> set[Key]:
        """Which keys need no further question to the critic; see :class:`CachedCritique`."""
        return {key for key, entry in self.get_many(keys).items() if entry.settled(asks)}

    def critics(self) -> dict[str, dict[str, Any]]:
        """The identities of all critics whose words are in the cache, by their digest."""
        rows = self.database.connection.execute("SELECT digest, identity FROM critics")
        return {digest: json.loads(identity) for digest, identity in rows}

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        self.database.close()

    def _critic(self, digest: str, identity: Mapping[str, Any]) -> int:
        connection = self.database.connection
        row = connection.execute("SELECT id FROM critics WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            row = connection.execute(
                "INSERT INTO critics (digest, identity) VALUES (?, ?) RETURNING id",
                (digest, canonical_json(dict(identity))),
            ).fetchone()
        return int(row[0])

    def _question(self, name: str, parts: Mapping[str, Any]) -> int:
        connection = self.database.connection
        texts = (parts["question"], parts["reference"], parts["answer"])
        digest = hashlib.sha256(canonical_json(texts).encode()).digest()[:16]
        row = connection.execute("SELECT id FROM questions WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            row = connection.execute(
                "INSERT INTO questions (digest, name, question, reference, answer) "
                "VALUES (?, ?, ?, ?, ?) RETURNING id",
                (digest, clean(name), *texts),
            ).fetchone()
        return int(row[0])


def cache_file(path: str | Path) -> Path:
    """The cache's file, from a file or folder.

    Example:
        >>> cache_file("a/b").as_posix(), cache_file("a/b.sqlite").as_posix()
        ('a/b/critiques.sqlite', 'a/b.sqlite')
    """
    path = Path(path).expanduser()
    return path if path.suffix in (".sqlite", ".db") else path / FILE_NAME


def checksum(key: Key, row: Sequence[Any]) -> bytes:
    """Eight bytes that change with any part of an entry's value."""
    return hashlib.sha256(key + canonical_json(list(row)).encode()).digest()[:8]


def _to_row(critique: Critique, created: float, asked: int) -> tuple[Any, ...]:
    steps = canonical_json([critique.copied, critique.changed, critique.added])
    refused = None if critique.refused is None else clean(critique.refused)
    text = clean(critique.text)
    return (
        text,
        critique.case,
        steps,
        refused,
        int(critique.tokens),
        float(critique.seconds),
        created,
        asked,
    )


def _from_row(row: Sequence[Any]) -> CachedCritique:
    text, case, steps, refused, tokens, seconds, created, asked = row
    copied, changed, added = (tuple(numbers) for numbers in json.loads(steps))
    critique = Critique(text, case, copied, changed, added, refused, tokens, seconds)
    return CachedCritique(critique, created, asked)


def _chunks(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]
