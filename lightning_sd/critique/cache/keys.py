"""The cache key: a hash over everything that decides a critique."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_sd._serialize import canonical_json, clean, identity_digest
from lightning_sd.critique.base import CritiqueRequest

SCHEMA = 1
"""Version of the key and of the tables. A change makes all caches start anew."""

Key = bytes


def critique_key(identity: Mapping[str, Any], request: CritiqueRequest) -> Key:
    """The key of one critique.

    Args:
        identity: Of the critic.
        request: What it is asked.

    Returns:
        32 bytes.
    """
    return critique_keys(identity, [request])[0]


def critique_keys(identity: Mapping[str, Any], requests: Sequence[CritiqueRequest]) -> list[Key]:
    """The keys of many; see :func:`critique_key`."""
    digest = identity_digest(identity).hex()
    return [request_key(digest, request_parts(request)) for request in requests]


def request_parts(request: CritiqueRequest) -> dict[str, Any]:
    """What of a request decides the critique, by name."""
    question = request.question
    return {
        "question": clean(question.text),
        "reference": None if question.reference is None else clean(question.reference),
        "answer": None if question.answer is None else clean(question.answer),
        "attempt": clean(request.attempt),
        "correct": bool(request.verdict.correct),
        "finished": bool(request.finished),
    }


def request_key(digest: str, parts: Mapping[str, Any]) -> Key:
    """The key from a critic's digest (hexadecimal) and the parts of a request."""
    text = canonical_json({"schema": SCHEMA, "critic": digest, **parts})
    return hashlib.sha256(text.encode()).digest()
