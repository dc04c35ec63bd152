"""Serve one critique cache to processes on other machines (extra ``serve``)."""

from __future__ import annotations

import os
import secrets
from dataclasses import asdict
from typing import Any

from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.client import TOKEN_VARIABLE
from lightning_sd.critique.cache.keys import Key, compute_key
from lightning_sd.critique.cache.records import convert_from_row, write_entries


def make_app(cache: CritiqueCache, token: str) -> Any:
    """Make the web application that :class:`RemoteCritiqueCache` talks to.

    Args:
        cache: The cache.
        token: Each request must carry it as a bearer token.
    """
    from fastapi import Depends, FastAPI, Header, HTTPException

    def check_token(authorization: str = Header("")) -> None:
        if not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "wrong token")

    app = FastAPI(dependencies=[Depends(check_token)], openapi_url=None)

    @app.post("/get")
    def get(body: dict[str, Any]) -> dict[str, Any]:
        entries = cache.get_many(_read_keys(body))
        return {key.hex(): asdict(entry) for key, entry in entries.items()}

    @app.post("/put")
    def put(body: dict[str, Any]) -> list[str]:
        entries = [convert_from_row(row) for row in body["rows"]]
        write_entries(cache, entries)
        return [compute_key(entry.identity, entry.request).hex() for entry in entries]

    @app.post("/claim")
    def claim(body: dict[str, Any]) -> list[str]:
        settings = (body["owner"], body["max_requests"], body["seconds"])
        return [key.hex() for key in cache.add_claims(_read_keys(body), *settings)]

    @app.post("/renew")
    def renew(body: dict[str, Any]) -> None:
        cache.renew_claims(body["owner"], body["seconds"])

    @app.post("/release")
    def release(body: dict[str, Any]) -> None:
        cache.remove_claims(body["owner"])

    return app


def serve_cache(path: str, host: str = "127.0.0.1", port: int = 8765) -> None:
    """Serve a critique cache until the process is stopped.

    Clients set ``cache_dir: http://HOST:PORT``. Server and clients read one token from the
    environment variable ``LIGHTNING_SD_CACHE_TOKEN``. Traffic is not encrypted: use a private
    network.

    Args:
        path: The cache's file or folder, on a local disk; created if missing.
        host: Address to listen on. The default is reached from this machine only.
        port: Port to listen on.

    Raises:
        ValueError: The token is not set.
        ImportError: The extra ``serve`` is not installed.
    """
    from lightning_sd.models.extras import require_extra  # imports torch

    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise ValueError(f"critique serve: set {TOKEN_VARIABLE} to a secret that clients know.")
    for package in ("fastapi", "uvicorn"):
        require_extra(package, "serve")
    import uvicorn

    uvicorn.run(make_app(CritiqueCache(path), token), host=host, port=port, log_level="warning")


def _read_keys(body: dict[str, Any]) -> list[Key]:
    return [bytes.fromhex(key) for key in body["keys"]]
