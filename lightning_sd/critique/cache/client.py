"""A critique cache on another machine, served by ``lightning-sd critique serve``."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.cache import CachedCritique
from lightning_sd.critique.cache.keys import Key, describe_request
from lightning_sd.critique.cache.records import CacheEntry, convert_to_row
from lightning_sd.types import Critique

TOKEN_VARIABLE = "LIGHTNING_SD_CACHE_TOKEN"
"""Environment variable that holds the token of the server."""
_TIMEOUT_SECONDS = 60.0
_ATTEMPTS = 5


class RemoteCritiqueCache:
    """The critiques of a server, with the methods of ``CritiqueCache`` that training needs.

    Processes on any number of machines may use one server. The token is read from the environment
    variable ``LIGHTNING_SD_CACHE_TOKEN``.

    Args:
        url: Address of the server, such as ``http://node1:8765``.

    Raises:
        ValueError: The token is not set.
    """

    def __init__(self, url: str) -> None:
        if not os.environ.get(TOKEN_VARIABLE):
            raise ValueError(f"data.cache_dir={url}: set {TOKEN_VARIABLE} to the server's token.")
        self.url = url.rstrip("/")

    def get_many(self, keys: Sequence[Key]) -> dict[Key, CachedCritique]:
        """Look up many keys; see :meth:`CritiqueCache.get_many`."""
        rows = self._post("get", {"keys": [key.hex() for key in keys]})
        return {bytes.fromhex(key): _read_critique(row) for key, row in rows.items()}

    def put_many(
        self,
        identity: Mapping[str, Any],
        items: Sequence[tuple[CritiqueRequest, Critique]],
        *,
        times_asked: Sequence[int] | None = None,
    ) -> list[Key]:
        """Write many critiques in one transaction; see :meth:`CritiqueCache.put_many`."""
        times_asked = [1] * len(items) if times_asked is None else times_asked
        rows = [
            convert_to_row(CacheEntry(identity, _as_text(request), critique, time.time(), times))
            for (request, critique), times in zip(items, times_asked, strict=True)
        ]
        return [bytes.fromhex(key) for key in self._post("put", {"rows": rows})]

    def add_claims(
        self, keys: Sequence[Key], owner: str, max_requests: int, seconds: float
    ) -> list[Key]:
        """Claim the keys that are free; see :meth:`CritiqueCache.add_claims`."""
        settings = {"owner": owner, "max_requests": max_requests, "seconds": seconds}
        claimed = self._post("claim", {"keys": [key.hex() for key in keys], **settings})
        return [bytes.fromhex(key) for key in claimed]

    def renew_claims(self, owner: str, seconds: float) -> None:
        """Renew the claims of an owner; see :meth:`CritiqueCache.renew_claims`."""
        self._post("renew", {"owner": owner, "seconds": seconds})

    def remove_claims(self, owner: str) -> None:
        """Remove the claims of an owner; see :meth:`CritiqueCache.remove_claims`."""
        self._post("release", {"owner": owner})

    def close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    def _post(self, verb: str, body: dict[str, Any]) -> Any:
        """Send a request; try again if the server cannot be reached.

        Raises:
            ConnectionError: The server refused the request or cannot be reached.
        """
        request = urllib.request.Request(
            f"{self.url}/{verb}",
            json.dumps(body).encode(),
            {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {os.environ[TOKEN_VARIABLE]}",
            },
        )
        for attempt in range(_ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                reason = f"{error.code} {error.reason}"
                if error.code == 401:
                    reason += f"; {TOKEN_VARIABLE} is not the server's token"
                raise ConnectionError(f"data.cache_dir={self.url}: {reason}.") from error
            except OSError as error:
                if attempt + 1 == _ATTEMPTS:
                    raise ConnectionError(
                        f"data.cache_dir={self.url}: the server cannot be reached ({error}). Start "
                        "it with `lightning-sd critique serve`."
                    ) from error
                time.sleep(2**attempt / 4)
        raise AssertionError("unreachable")


def _as_text(request: CritiqueRequest) -> CritiqueRequest:
    """Return the request with the text of its question as the key has it."""
    text = describe_request(request)["question"]
    return replace(request, question=replace(request.question, text=text))


def _read_critique(row: dict[str, Any]) -> CachedCritique:
    critique = row["critique"]
    steps = {name: tuple(critique[name]) for name in ("copied", "changed", "added")}
    return CachedCritique(Critique(**{**critique, **steps}), row["created"], row["times_asked"])
