"""Claims record which process asks the critic for which critique, so none is requested twice."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from lightning_sd.critique.cache.keys import Key

CLAIM_SECONDS = 30.0
"""Seconds until an unrenewed claim expires and another process may take over its work."""


class ClaimStore(Protocol):
    """Where claims are recorded."""

    def add_claims(
        self, keys: Sequence[Key], owner: str, max_requests: int, seconds: float
    ) -> list[Key]:
        """Claim the keys that are free, and return them."""

    def renew_claims(self, owner: str, seconds: float) -> None:
        """Let the claims of an owner expire ``seconds`` from now."""

    def remove_claims(self, owner: str) -> None:
        """Remove the claims of an owner."""

    def close(self) -> None:
        """Close this thread's connection."""


@contextmanager
def claim_keys(
    cache: ClaimStore,
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
    claimed = cache.add_claims(keys, owner, max_requests, seconds)
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
        cache.remove_claims(owner)


def _renew_claims(cache: ClaimStore, owner: str, seconds: float, done: threading.Event) -> None:
    while not done.wait(seconds / 3):
        cache.renew_claims(owner, seconds)
    cache.close()
