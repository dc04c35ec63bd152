"""Claims: who is asking the critic for what, so that nothing is asked twice at once."""

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
"""Life of a claim that nobody renews: so long the work of a dead process stays undone."""


@contextmanager
def claimed(
    cache: CritiqueCache, keys: Sequence[Key], *, asks: int = 1, seconds: float = CLAIM_SECONDS
) -> Iterator[list[Key]]:
    """Take what is free of some keys, and hold it until the block ends, however it ends.

    A claim is renewed by a thread for as long as the block runs. When the process dies, its claims
    run out, and another process takes the work over.

    Args:
        cache: Whose keys.
        keys: Wanted.
        asks: A refusal stands after so many questions; see ``CachedCritique.settled``.
        seconds: Life of a claim without renewal.

    Yields:
        Those that are ours now; the others are settled, or another worker is at them.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    mine = _take(cache, keys, owner, asks, seconds)
    if not mine:
        yield mine
        return
    done = threading.Event()
    heart = threading.Thread(target=_renew, args=(cache, owner, seconds, done), daemon=True)
    heart.start()
    try:
        yield mine
    finally:
        done.set()
        heart.join()
        with cache.database.writing() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))


def _take(
    cache: CritiqueCache, keys: Sequence[Key], owner: str, asks: int, seconds: float
) -> list[Key]:
    with cache.database.writing() as connection:
        # Everything happens under the write lock: nobody can settle or claim a key in between.
        now = time.time()
        connection.execute("DELETE FROM claims WHERE expires < ?", (now,))
        settled = cache.settled(keys, asks)
        mine = []
        for key in dict.fromkeys(keys):
            if key not in settled:
                row = (key, owner, now + seconds)
                added = connection.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", row)
                mine += [key] * added.rowcount
    return mine


def _renew(cache: CritiqueCache, owner: str, seconds: float, done: threading.Event) -> None:
    while not done.wait(seconds / 3):
        with cache.database.writing() as connection:
            connection.execute(
                "UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + seconds, owner)
            )
    cache.close()
