"""Asking the critic through the cache: each attempt once, whoever asks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Literal

from lightning_sd.critique.base import Critic, CritiqueRequest, is_failure
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.claims import CLAIM_SECONDS, claimed
from lightning_sd.critique.cache.keys import Key, critique_keys
from lightning_sd.types import Critique

OnRefusal = Literal["drop", "reference", "retry"]

NOT_ASKED = Critique(text="", case="", refused="the critic was not asked in this batch")

COUNTERS = ("hits", "misses", "skipped", "refused", "fallback", "failed", "tokens")
_FLUSH_CRITIQUES = 64
_FLUSH_SECONDS = 1.0
_POLL_SECONDS = 0.05

Progress = Callable[[int], None]


class CritiqueService:
    """A critic behind a cache.

    Args:
        critic: Asked for what the cache has not.
        cache: Shared with other processes.
        on_refusal: What becomes of a critique that must not be used. ``drop``: it is handed on as
            refused. ``reference``: the reference solution takes its place. ``retry``: the critic is
            told why and asked once more, then as ``drop``.
        claim_seconds: How long the work of a process that died stays undone.
    """

    def __init__(
        self,
        critic: Critic,
        cache: CritiqueCache,
        on_refusal: OnRefusal = "drop",
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        self.critic, self.cache = critic, cache
        self.on_refusal = on_refusal
        self.claim_seconds = claim_seconds
        self.asks = 2 if on_refusal == "retry" else 1
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0

    def ask(
        self, requests: Sequence[CritiqueRequest], progress: Progress | None = None
    ) -> list[Critique]:
        """Critiques for all requests, from the cache or the critic.

        Args:
            requests: Any number; equal ones are asked once.
            progress: Called with the number of different requests that were settled since its last
                call.

        Returns:
            One critique a request, in order.
        """
        keys = critique_keys(self.critic.identity(), requests)
        found = self._settle(
            dict(zip(keys, requests, strict=True)), progress or (lambda number: None)
        )
        return self._handed_out([found[key] for key in keys], requests)

    def look_up(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """What the cache has; the rest is refused, and the critic is not asked.

        Args:
            requests: Any number.

        Returns:
            One critique a request, in order.
        """
        keys = critique_keys(self.critic.identity(), requests)
        found = self._cached(keys)
        self.counts["hits"] += len(found)
        self.counts["skipped"] += len(set(keys) - found.keys())
        return self._handed_out([found.get(key, NOT_ASKED) for key in keys], requests)

    def counters(self) -> dict[str, float]:
        """What happened since the last call.

        Returns:
            ``hits`` and ``misses`` of different requests, and those ``skipped``, which nobody was
            asked about; requests ``refused``, answered with the reference (``fallback``) or
            ``failed``; ``tokens`` and ``seconds`` of the critic. If there were critiques to use,
            ``copied``: the share of the attempts' steps that stand in them unchanged.
        """
        counts = {f"critique_{name}": float(self.counts[name]) for name in COUNTERS}
        counts["critique_seconds"] = self.seconds
        if self.counts["copied"] + self.counts["changed"]:
            steps = self.counts["copied"] + self.counts["changed"]
            counts["critique_copied"] = self.counts["copied"] / steps
        self.counts.clear()
        self.seconds = 0.0
        return counts

    def _settle(
        self, wanted: dict[Key, CritiqueRequest], progress: Progress
    ) -> dict[Key, Critique]:
        """Critiques of different requests; waits for those that another process is at."""
        found = self._cached(wanted)
        progress(len(found))
        asked: set[Key] = set()
        while waiting := [key for key in wanted if key not in found]:
            with claimed(self.cache, waiting, asks=self.asks, seconds=self.claim_seconds) as mine:
                failures = self._work({key: wanted[key] for key in mine}, progress)
            asked.update(mine)
            others = self._cached([key for key in waiting if key not in failures])
            progress(len(others.keys() - set(mine)))
            found |= failures | others
            if not mine and len(found) < len(wanted):
                time.sleep(_POLL_SECONDS)
        self.counts["misses"] += len(asked)
        self.counts["hits"] += len(wanted) - len(asked)
        return found

    def _cached(self, keys: Iterable[Key]) -> dict[Key, Critique]:
        entries = self.cache.get_many(list(keys))
        return {key: entry.critique for key, entry in entries.items() if entry.settled(self.asks)}

    def _work(self, mine: dict[Key, CritiqueRequest], progress: Progress) -> dict[Key, Critique]:
        """Ask the critic and write its answers as they come.

        Returns:
            What could not be had, which is not cached.
        """
        before = self.cache.get_many(list(mine))
        keys = list(mine)
        requests = [
            replace(mine[key], refused=before[key].critique.refused) if key in before else mine[key]
            for key in keys
        ]
        failures: dict[Key, Critique] = {}
        with closing(_batches(self.critic.stream(requests))) as batches:
            for batch in batches:
                failures |= {keys[i]: critique for i, critique in batch if is_failure(critique)}
                good = [(i, critique) for i, critique in batch if not is_failure(critique)]
                asked = [before[keys[i]].asked + 1 if keys[i] in before else 1 for i, _ in good]
                self.cache.put_many(
                    self.critic.identity(), [(requests[i], c) for i, c in good], asked=asked
                )
                self._count(batch)
                settled = [
                    critique.refused is None or number >= self.asks
                    for (_, critique), number in zip(good, asked, strict=True)
                ]
                progress(sum(settled) + len(batch) - len(good))
        return failures

    def _count(self, batch: Sequence[tuple[int, Critique]]) -> None:
        self.counts["failed"] += sum(is_failure(critique) for _, critique in batch)
        self.counts["tokens"] += sum(critique.tokens for _, critique in batch)
        self.seconds += sum(critique.seconds for _, critique in batch)

    def _handed_out(
        self, critiques: Sequence[Critique], requests: Sequence[CritiqueRequest]
    ) -> list[Critique]:
        """Count, and do with refusals as the user chose."""
        for critique in critiques:
            self.counts["refused"] += critique.refused is not None
            if critique.refused is None:
                self.counts["copied"] += len(critique.copied)
                self.counts["changed"] += len(critique.changed)
        return [self._policy(c, r) for c, r in zip(critiques, requests, strict=True)]

    def _policy(self, critique: Critique, request: CritiqueRequest) -> Critique:
        reference = request.question.reference
        if critique.refused is None or self.on_refusal != "reference" or reference is None:
            return critique
        self.counts["fallback"] += 1
        return Critique(text=reference, case=critique.case)


def _batches(
    stream: Iterator[tuple[int, Critique]],
) -> Generator[list[tuple[int, Critique]], None, None]:
    """Gather a stream into batches worth a transaction, without holding one back for long."""
    batch: list[tuple[int, Critique]] = []
    since = time.monotonic()
    try:
        for item in stream:
            batch.append(item)
            if len(batch) >= _FLUSH_CRITIQUES or time.monotonic() - since > _FLUSH_SECONDS:
                yield batch
                batch, since = [], time.monotonic()
    except (Exception, KeyboardInterrupt, SystemExit):
        # What the critic wrote before it was stopped is kept.
        if batch:
            yield batch
        raise
    if batch:
        yield batch
