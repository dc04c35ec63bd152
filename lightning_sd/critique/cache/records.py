"""Read a whole critique cache, and convert its entries to and from flat rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import NoneType
from typing import Any, TypeVar

from lightning_sd._serialize import write_canonical_json
from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.cache import CritiqueCache, compute_checksum
from lightning_sd.critique.cache.keys import Key, hash_request
from lightning_sd.types import Critique, Question, Verdict

BATCH = 1000
"""Entries read or written at a time."""

_SELECT = """
SELECT k.rowid, k.key, c.digest, c.identity, q.name, q.question, q.reference, q.answer, k.attempt,
       k.correct, k.finished, k.text, k."case", k.steps, k.refused, k.tokens, k.seconds, k.created,
       k.asked, k.checksum
FROM critiques k LEFT JOIN critics c ON c.id = k.critic LEFT JOIN questions q ON q.id = k.question
WHERE k.rowid > ? ORDER BY k.rowid LIMIT ?
"""
_VALUE = slice(11, 19)
"""The columns of a row that the checksum covers."""

_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "question", "attempt", "critique", "case", "critic"), (str,)),
    **dict.fromkeys(("reference", "answer", "refused"), (str, NoneType)),
    **dict.fromkeys(("correct", "finished"), (bool,)),
    **dict.fromkeys(("copied", "changed", "added"), (list,)),
    **dict.fromkeys(("tokens", "asked"), (int,)),
    **dict.fromkeys(("seconds", "created"), (float, int)),
}
"""The types of an exported row's values."""
_TOO_LARGE = 2**63
"""The first integer that SQLite cannot hold."""

T = TypeVar("T")


@dataclass(frozen=True)
class CacheEntry:
    """One critique with its request and its critic."""

    identity: Mapping[str, Any]
    """Identity of the critic that wrote it."""
    request: CritiqueRequest
    critique: Critique
    created: float
    """Time of writing, in seconds since 1970."""
    times_asked: int
    """How many times the critic was asked."""


def read_entries(cache: CritiqueCache) -> Iterator[CacheEntry]:
    """Yield all entries of a cache, in the order in which they were first written.

    Entries are read in batches, so other processes may write meanwhile and memory use stays small.
    """
    for row in _read_rows(cache):
        (_, _, _, identity, name, question, reference, answer, attempt, correct, finished) = row[
            :11
        ]
        text, case, steps, refused, tokens, seconds, created, times_asked = row[_VALUE]
        copied, changed, added = (tuple(numbers) for numbers in json.loads(steps))
        yield CacheEntry(
            identity=json.loads(identity),
            request=CritiqueRequest(
                Question(name, question, (), reference, answer),
                attempt,
                Verdict(float(correct), bool(correct)),
                bool(finished),
            ),
            critique=Critique(text, case, copied, changed, added, refused, tokens, seconds),
            created=created,
            times_asked=times_asked,
        )


def find_faults(cache: CritiqueCache) -> Iterator[tuple[Key, str]]:
    """Yield the key and the fault of each entry with a wrong key or checksum."""
    for row in _read_rows(cache):
        key, digest = row[1], row[2]
        parts = dict(zip(("question", "reference", "answer", "attempt"), row[5:9], strict=True))
        parts |= {"correct": bool(row[9]), "finished": bool(row[10])}
        if digest is None or parts["question"] is None:
            yield key, "its critic or question is missing"
        elif hash_request(digest, parts) != key:
            yield key, "the key does not match its critic and request"
        elif compute_checksum(key, row[_VALUE]) != row[19]:
            yield key, "the checksum does not match the critique"


def write_entries(cache: CritiqueCache, batch: Sequence[CacheEntry]) -> None:
    """Write entries with their original dates. Answers that the cache already has are kept."""
    by_critic: dict[str, list[CacheEntry]] = {}
    for entry in batch:
        by_critic.setdefault(write_canonical_json(dict(entry.identity)), []).append(entry)
    for group in by_critic.values():
        cache.put_many(
            group[0].identity,
            [(entry.request, entry.critique) for entry in group],
            times_asked=[entry.times_asked for entry in group],
            created=[entry.created for entry in group],
        )


def convert_to_row(entry: CacheEntry) -> dict[str, Any]:
    """Return an entry as one row of a data set."""
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
        "asked": entry.times_asked,
        "critic": write_canonical_json(dict(entry.identity)),
    }


def convert_from_row(row: Mapping[str, Any]) -> CacheEntry:
    """Return the entry of a row that :func:`convert_to_row` made.

    Raises:
        KeyError: A column is missing.
        ValueError: A value has a wrong type, is not finite or is out of range.
    """
    for column, kinds in _KINDS.items():
        _check_value(column, row[column], kinds)
    for column in ("copied", "changed", "added"):
        for number in row[column]:
            _check_value(column, number, (int,))
    return CacheEntry(
        identity=_read_identity(row["critic"]),
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
        times_asked=row["asked"],
    )


def _check_value(column: str, value: Any, kinds: tuple[type, ...]) -> None:
    if type(value) not in kinds:
        names = " or ".join("null" if kind is NoneType else kind.__name__ for kind in kinds)
        raise ValueError(f"{column}={value!r:.80}: must be of type {names}.")
    if isinstance(value, (int, float)) and not 0 <= value < _TOO_LARGE:
        raise ValueError(f"{column}={value!r:.80}: must be at least 0 and below 2**63.")


def _read_identity(text: str) -> dict[str, Any]:
    try:
        identity = json.loads(text)
        write_canonical_json(identity)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"critic={text!r:.80}: is not JSON: {error}.") from error
    if not isinstance(identity, dict):
        raise ValueError(f"critic={text!r:.80}: must be a JSON object.")
    return identity


def split_into_batches(items: Iterator[T]) -> Iterator[list[T]]:
    """Yield lists of at most ``BATCH`` items."""
    while batch := list(islice(items, BATCH)):
        yield batch


def _read_rows(cache: CritiqueCache) -> Iterator[tuple[Any, ...]]:
    last = 0
    while rows := cache.database.connection.execute(_SELECT, (last, BATCH)).fetchall():
        yield from rows
        last = rows[-1][0]
