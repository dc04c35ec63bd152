"""Reading a critique cache whole, and its entries as flat rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from lightning_sd._serialize import canonical_json
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.cache import CritiqueCache, checksum
from lightning_sd.critique.cache.keys import Key, request_key
from lightning_sd.types import Critique, Question, Verdict

BATCH = 1000
"""Entries read or written at once."""

_ROWS = """
SELECT k.rowid, k.key, c.digest, c.identity, q.name, q.question, q.reference, q.answer, k.attempt,
       k.correct, k.finished, k.text, k."case", k.steps, k.refused, k.tokens, k.seconds, k.created,
       k.asked, k.checksum
FROM critiques k LEFT JOIN critics c ON c.id = k.critic LEFT JOIN questions q ON q.id = k.question
WHERE k.rowid > ? ORDER BY k.rowid LIMIT ?
"""
_VALUE = slice(11, 19)

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One critique with everything that belongs to it."""

    identity: Mapping[str, Any]
    """Of the critic that wrote it."""
    request: CritiqueRequest
    critique: Critique
    created: float
    asked: int


def entries(cache: CritiqueCache) -> Iterator[Entry]:
    """All entries, in the order in which they were first written.

    They are read in batches, so others may write meanwhile, and memory stays small.
    """
    for row in _rows(cache):
        (_, _, _, identity, name, question, reference, answer, attempt, correct, finished) = row[
            :11
        ]
        text, case, steps, refused, tokens, seconds, created, asked = row[_VALUE]
        copied, changed, added = (tuple(numbers) for numbers in json.loads(steps))
        yield Entry(
            identity=json.loads(identity),
            request=CritiqueRequest(
                Question(name, question, (), reference, answer),
                attempt,
                Verdict(float(correct), bool(correct)),
                bool(finished),
            ),
            critique=Critique(text, case, copied, changed, added, refused, tokens, seconds),
            created=created,
            asked=asked,
        )


def faults(cache: CritiqueCache) -> Iterator[tuple[Key, str]]:
    """Entries whose key or checksum does not fit what they hold, and why."""
    for row in _rows(cache):
        key, digest = row[1], row[2]
        parts = dict(zip(("question", "reference", "answer", "attempt"), row[5:9], strict=True))
        parts |= {"correct": bool(row[9]), "finished": bool(row[10])}
        if digest is None or parts["question"] is None:
            yield key, "its critic or question is missing"
        elif request_key(digest, parts) != key:
            yield key, "the key does not fit its critic and request"
        elif checksum(key, row[_VALUE]) != row[19]:
            yield key, "the checksum does not fit the critique"


def add(cache: CritiqueCache, batch: Sequence[Entry]) -> None:
    """Write entries as they were, dates included; what the cache has already stays."""
    by_critic: dict[str, list[Entry]] = {}
    for entry in batch:
        by_critic.setdefault(canonical_json(dict(entry.identity)), []).append(entry)
    for group in by_critic.values():
        cache.put_many(
            group[0].identity,
            [(entry.request, entry.critique) for entry in group],
            asked=[entry.asked for entry in group],
            created=[entry.created for entry in group],
        )


def to_row(entry: Entry) -> dict[str, Any]:
    """An entry as one row of a data set."""
    request, critique = entry.request, entry.critique
    return {
        "id": request.question.id,
        "question": request.question.text,
        "reference": request.question.reference,
        "answer": request.question.answer,
        "attempt": request.attempt,
        "correct": request.verdict.correct,
        "finished": request.finished,
        "critique": critique.text,
        "case": critique.case,
        "copied": list(critique.copied),
        "changed": list(critique.changed),
        "added": list(critique.added),
        "refused": critique.refused,
        "tokens": critique.tokens,
        "seconds": critique.seconds,
        "created": entry.created,
        "asked": entry.asked,
        "critic": canonical_json(dict(entry.identity)),
    }


def from_row(row: Mapping[str, Any]) -> Entry:
    """The entry of a row that :func:`to_row` made.

    Raises:
        KeyError: A column is missing.
    """
    return Entry(
        identity=json.loads(row["critic"]),
        request=CritiqueRequest(
            Question(row["id"], row["question"], (), row["reference"], row["answer"]),
            row["attempt"],
            Verdict(float(row["correct"]), row["correct"]),
            row["finished"],
        ),
        critique=Critique(
            text=row["critique"],
            case=row["case"],
            copied=tuple(row["copied"]),
            changed=tuple(row["changed"]),
            added=tuple(row["added"]),
            refused=row["refused"],
            tokens=row["tokens"],
            seconds=row["seconds"],
        ),
        created=row["created"],
        asked=row["asked"],
    )


def batched(items: Iterator[T]) -> Iterator[list[T]]:
    """Lists of at most ``BATCH`` items."""
    while batch := list(islice(items, BATCH)):
        yield batch


def _rows(cache: CritiqueCache) -> Iterator[tuple[Any, ...]]:
    last = 0
    while rows := cache.database.connection.execute(_ROWS, (last, BATCH)).fetchall():
        yield from rows
        last = rows[-1][0]
