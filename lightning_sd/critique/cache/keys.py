"""The cache key: a hash of everything that decides a critique."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_sd._serialize import hash_identity, replace_surrogates, write_canonical_json
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.text.content import render_question

SCHEMA = 1
"""Version of the key and of the tables. After a change no older cache file is accepted."""

Key = bytes


def compute_key(identity: Mapping[str, Any], request: CritiqueRequest) -> Key:
    """Compute the key of one critique.

    Args:
        identity: Identity of the critic.
        request: Request to the critic.

    Returns:
        32 bytes.
    """
    return compute_keys(identity, [request])[0]


def compute_keys(identity: Mapping[str, Any], requests: Sequence[CritiqueRequest]) -> list[Key]:
    """Compute the keys of many critiques of one critic; see :func:`compute_key`."""
    digest = hash_identity(identity).hex()
    return [hash_request(digest, describe_request(request)) for request in requests]


def describe_request(request: CritiqueRequest) -> dict[str, Any]:
    """Return the parts of a request that decide the critique, by name."""
    question = request.question
    return {
        "question": replace_surrogates(render_question(question)),
        "reference": None if question.reference is None else replace_surrogates(question.reference),
        "answer": None if question.answer is None else replace_surrogates(question.answer),
        "attempt": replace_surrogates(request.attempt),
        "correct": bool(request.verdict.correct),
        "finished": bool(request.finished),
    }


def hash_request(digest: str, parts: Mapping[str, Any]) -> Key:
    """Compute a key from a critic's digest (hexadecimal) and the parts of a request."""
    text = write_canonical_json({"schema": SCHEMA, "critic": digest, **parts})
    return hashlib.sha256(text.encode()).digest()
