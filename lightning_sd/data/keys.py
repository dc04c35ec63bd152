"""The cache key: a hash over everything that decides a critique."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_sd.critics.base import CritiqueRequest

SCHEMA = 1
"""Version of the key and of the tables. A change makes all caches start anew."""

Key = bytes


def canonical_json(value: Any) -> str:
    """Write plain values so that equal ones give equal text.

    Raises:
        TypeError: A value that is not plain.
        ValueError: Not a number, or infinite.

    Example:
        >>> canonical_json({"b": [1, None], "a": "x"})
        '{"a":"x","b":[1,null]}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def identity_digest(identity: Mapping[str, Any]) -> bytes:
    """Hash a critic's identity.

    Raises:
        TypeError: The identity holds something other than plain JSON values.
    """
    try:
        return hashlib.sha256(canonical_json(dict(identity)).encode()).digest()
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"A critic's identity() must hold plain JSON values only, but gave {dict(identity)!r}: "
            f"{error}"
        ) from error


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


def clean(text: str) -> str:
    """Replace lone surrogates, which JSON may carry and UTF-8 (so SQLite) may not."""
    return text.encode("utf-8", "replace").decode("utf-8")
