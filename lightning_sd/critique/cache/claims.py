"""Claims record which process asks the critic for which critique, so none is requested twice."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.keys import Key

CLAIM_SECONDS = 30.0
"""Seconds until an unrenewed claim expires and another process may take over its work."""


@contextmanager
def claim_keys(
    cache: CritiqueCache,
    keys: Sequence[Key],
    *,
    max_requests: int = 1,
    seconds: float = CLAIM_SECONDS,
) -> Iterator[list[Key]]:
    """Claim the keys that are free, and release them when the block ends for any reason.

    A background thread renews the claims while the block runs. If the process dies, its claims
    expire and another process takes over the work.

    Args:
        cache: Cache of the keys.
        keys: Keys to claim.
        max_requests: Number of requests after which a refusal is final; see
            ``CachedCritique.is_final``.
        seconds: Seconds until an unrenewed claim expires.

    Yields:
        The keys that this process now holds. The other keys have a final critique, or another
        worker holds them.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    claimed = _insert_claims(cache, keys, owner, max_requests, seconds)
    if not claimed:
        yield claimed
        return
    done = threading.Event()
    renewer = threading.Thread(
        target=_renew_claims, args=(cache, owner, seconds, done), daemon=True
    )
    renewer.start()
    try:
        yield claimed
    finally:
        done.set()
        renewer.join()
        with cache.database.write_transaction() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))


def _insert_claims(
    cache: CritiqueCache, keys: Sequence[Key], owner: str, max_requests: int, seconds: float
) -> list[Key]:
    with cache.database.write_transaction() as connection:
        # The write lock is held throughout, so no other process can answer or claim a key now.
        now = time.time()
        connection.execute("DELETE FROM claims WHERE expires < ?", (now,))
        final = cache.select_final(keys, max_requests)
        claimed = []
        for key in dict.fromkeys(keys):
            if key not in final:
                row = (key, owner, now + seconds)
                inserted = connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", row)
                claimed += [key] * inserted.rowcount
    return claimed


def _renew_claims(cache: CritiqueCache, owner: str, seconds: float, done: threading.Event) -> None:
    while not done.wait(seconds / 3):
        with cache.database.write_transaction() as connection:
            connection.execute(
                "UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + seconds, owner)
            )
    cache.close()
