"""Critiques on disk: a critic is asked once per request, across all runs.

The cache is one SQLite file, shared by any number of processes on one machine. Entries are only
added; a refused critique is replaced when a later request gives an answer.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sd._serialize import hash_identity, replace_surrogates, write_canonical_json
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.database import Database
from lightning_sd.critique.cache.keys import SCHEMA, Key, describe_request, hash_request
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
_VALUE_COLUMNS = 'text, "case", steps, refused, tokens, seconds, created, asked'
# An answer is never replaced. A refusal is replaced by an answer, or by a refusal after more
# requests to the critic.
_INSERT = f"""
INSERT INTO critiques (key, critic, question, attempt, correct, finished, {_VALUE_COLUMNS},
  checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
text = excluded.text, "case" = excluded."case", steps = excluded.steps, refused = excluded.refused,
tokens = excluded.tokens, seconds = excluded.seconds, created = excluded.created,
asked = excluded.asked, checksum = excluded.checksum
WHERE critiques.refused IS NOT NULL
AND (excluded.refused IS NULL OR excluded.asked > critiques.asked)
"""
_KEYS_PER_QUERY = 500
"""Older SQLite versions allow at most 999 variables per statement."""


@dataclass(frozen=True)
class CachedCritique:
    """A critique read from the cache."""

    critique: Critique
    created: float
    """Time of writing, in seconds since 1970."""
    times_asked: int = 1
    """How many times the critic was asked. It is asked a second time after a refusal."""

    def is_final(self, max_requests: int) -> bool:
        """Tell whether the critic need not be asked again.

        Args:
            max_requests: Number of requests after which a refusal is final.
        """
        return self.critique.refused is None or self.times_asked >= max_requests


class CritiqueCache:
    """Critiques in one SQLite file, by :func:`~lightning_sd.critique.cache.keys.compute_key`.

    Several processes (ranks, loader workers, two runs) may use one file at the same time, and a
    cache object may be forked or pickled. The file must be on a local disk.

    Args:
        path: The file, or the folder that holds ``critiques.sqlite``. Both are created if missing.

    Raises:
        ValueError: The file is not a critique cache, or was written by another version.

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
        self.path = resolve_cache_file(path)
        self.database = Database(self.path, tables=_TABLES, version=SCHEMA)

    def __len__(self) -> int:
        return int(self.database.connection.execute("SELECT count(*) FROM critiques").fetchone()[0])

    def get_many(self, keys: Sequence[Key]) -> dict[Key, CachedCritique]:
        """Look up many keys.

        Args:
            keys: Keys in any number, repeats allowed.

        Returns:
            The cached critiques by key. Keys without an entry are missing.
        """
        cached = {}
        for chunk in _split_keys(list(dict.fromkeys(keys))):
            marks = ",".join("?" * len(chunk))
            rows = self.database.connection.execute(
                f"SELECT key, {_VALUE_COLUMNS} FROM critiques WHERE key IN ({marks})", chunk
            )
            cached.update({row[0]: _from_row(row[1:]) for row in rows})
        return cached

    def put_many(
        self,
        identity: Mapping[str, Any],
        items: Sequence[tuple[CritiqueRequest, Critique]],
        *,
        times_asked: Sequence[int] | None = None,
        created: Sequence[float] | None = None,
    ) -> list[Key]:
        """Write many critiques in one transaction: all of them are stored, or none.

        An existing entry is kept, unless it is a refusal and the new critique is an answer or comes
        after more requests to the critic.

        Args:
            identity: Identity of the critic that wrote them.
            items: Pairs of request and critique.
            times_asked: How many times the critic was asked, per item. Default: once.
            created: Time of writing per item, in seconds since 1970. Default: now.

        Returns:
            The keys of the items, in order.
        """
        times_asked = [1] * len(items) if times_asked is None else times_asked
        created = [time.time()] * len(items) if created is None else created
        digest = hash_identity(identity).hex()
        requests = [describe_request(request) for request, _ in items]
        keys = [hash_request(digest, parts) for parts in requests]
        with self.database.write_transaction() as connection:
            critic = self._insert_critic(digest, identity)
            for i, (key, parts) in enumerate(zip(keys, requests, strict=True)):
                request, critique = items[i]
                value = _to_row(critique, created[i], times_asked[i])
                question = self._insert_question(request.question.id, parts)
                asked_about = (question, parts["attempt"], parts["correct"], parts["finished"])
                row = (key, critic, *asked_about, *value, compute_checksum(key, value))
                connection.execute(_INSERT, row)
        return keys

    def select_final(self, keys: Sequence[Key], max_requests: int = 1) -> set[Key]:
        """Return the keys for which the critic need not be asked again.

        See :meth:`CachedCritique.is_final`.
        """
        cached = self.get_many(keys)
        return {key for key, entry in cached.items() if entry.is_final(max_requests)}

    def add_claims(
        self, keys: Sequence[Key], owner: str, max_requests: int, seconds: float
    ) -> list[Key]:
        """Claim the keys that are free; see :func:`~lightning_sd.critique.cache.claims.claim_keys`.

        Args:
            keys: Keys to claim.
            owner: Who claims them.
            max_requests: Number of requests after which a refusal is final.
            seconds: Seconds until the claims expire.

        Returns:
            The keys that have neither a final critique nor another owner.
        """
        with self.database.write_transaction() as connection:
            # The write lock is held throughout, so no other process can answer or claim a key now.
            now = time.time()
            connection.execute("DELETE FROM claims WHERE expires < ?", (now,))
            final = self.select_final(keys, max_requests)
            claimed = []
            for key in dict.fromkeys(keys):
                if key not in final:
                    row = (key, owner, now + seconds)
                    added = connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", row)
                    claimed += [key] * added.rowcount
        return claimed

    def renew_claims(self, owner: str, seconds: float) -> None:
        """Let the claims of an owner expire ``seconds`` from now."""
        with self.database.write_transaction() as connection:
            connection.execute(
                "UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + seconds, owner)
            )

    def remove_claims(self, owner: str) -> None:
        """Remove the claims of an owner."""
        with self.database.write_transaction() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))

    def read_critics(self) -> dict[str, dict[str, Any]]:
        """Return the identities of all critics with critiques in the cache, by digest."""
        rows = self.database.connection.execute("SELECT digest, identity FROM critics")
        return {digest: json.loads(identity) for digest, identity in rows}

    def close(self) -> None:
        """Close this thread's connection. The next use opens a new one."""
        self.database.close()

    def _insert_critic(self, digest: str, identity: Mapping[str, Any]) -> int:
        connection = self.database.connection
        row = connection.execute("SELECT id FROM critics WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            row = connection.execute(
                "INSERT INTO critics (digest, identity) VALUES (?, ?) RETURNING id",
                (digest, write_canonical_json(dict(identity))),
            ).fetchone()
        return int(row[0])

    def _insert_question(self, name: str, parts: Mapping[str, Any]) -> int:
        connection = self.database.connection
        texts = (parts["question"], parts["reference"], parts["answer"])
        digest = hashlib.sha256(write_canonical_json(texts).encode()).digest()[:16]
        row = connection.execute("SELECT id FROM questions WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            row = connection.execute(
                "INSERT INTO questions (digest, name, question, reference, answer) "
                "VALUES (?, ?, ?, ?, ?) RETURNING id",
                (digest, replace_surrogates(name), *texts),
            ).fetchone()
        return int(row[0])


def resolve_cache_file(path: str | Path) -> Path:
    """Return the cache file of a file or folder.

    Example:
        >>> resolve_cache_file("a/b").as_posix()
        'a/b/critiques.sqlite'
        >>> resolve_cache_file("a/b.sqlite").as_posix()
        'a/b.sqlite'
    """
    path = Path(path).expanduser()
    return path if path.suffix in (".sqlite", ".db") else path / FILE_NAME


def compute_checksum(key: Key, value: Sequence[Any]) -> bytes:
    """Compute eight bytes over an entry's key and all of its values."""
    return hashlib.sha256(key + write_canonical_json(list(value)).encode()).digest()[:8]


def _to_row(critique: Critique, created: float, times_asked: int) -> tuple[Any, ...]:
    steps = write_canonical_json([critique.copied, critique.changed, critique.added])
    refused = None if critique.refused is None else replace_surrogates(critique.refused)
    text = replace_surrogates(critique.text)
    return (
        text,
        critique.case,
        steps,
        refused,
        int(critique.tokens),
        float(critique.seconds),
        created,
        times_asked,
    )


def _from_row(row: Sequence[Any]) -> CachedCritique:
    text, case, steps, refused, tokens, seconds, created, times_asked = row
    copied, changed, added = (tuple(numbers) for numbers in json.loads(steps))
    critique = Critique(text, case, copied, changed, added, refused, tokens, seconds)
    return CachedCritique(critique, created, times_asked)


def _split_keys(keys: Sequence[Key]) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        yield keys[start : start + _KEYS_PER_QUERY]
