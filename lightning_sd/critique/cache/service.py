"""Ask a critic through the cache, so that each attempt is critiqued once across all processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Literal

from lightning_sd.critique.base import Critic, CritiqueRequest, is_failure, make_failure
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.claims import CLAIM_SECONDS, claim_keys
from lightning_sd.critique.cache.client import RemoteCritiqueCache
from lightning_sd.critique.cache.keys import Key, compute_keys
from lightning_sd.critique.check import sanitize_critique
from lightning_sd.critique.deadline import CriticTimeoutError, DeadlineRunner
from lightning_sd.critique.reasons import NOT_ASKED
from lightning_sd.types import Critique

OnRefusal = Literal["drop", "reference", "retry"]

COUNTERS = ("hits", "misses", "skipped", "refused", "fallback", "failed", "timed_out", "tokens")
DEADLINE_SECONDS = 1200.0
_FLUSH_CRITIQUES = 64
_FLUSH_SECONDS = 1.0
_POLL_SECONDS = 0.05

ReportProgress = Callable[[int], None]


class CritiqueService:
    """A critic behind a cache.

    Args:
        critic: Critic for requests that are not in the cache.
        cache: Cache, which may be shared with other processes.
        on_refusal: Treatment of a critique that must not be used. ``drop`` returns it with its
            reason. ``reference`` returns the reference solution instead. ``retry`` tells the critic
            the reason and asks once more; a second refusal is treated as ``drop``.
        claim_seconds: Seconds until the work of a dead process may be taken over.
        deadline: Seconds without a new critique after which the critic is given up and the open
            requests fail. None sets no deadline.
    """

    def __init__(
        self,
        critic: Critic,
        cache: CritiqueCache | RemoteCritiqueCache,
        on_refusal: OnRefusal = "drop",
        claim_seconds: float = CLAIM_SECONDS,
        deadline: float | None = DEADLINE_SECONDS,
    ) -> None:
        self.critic, self.cache = critic, cache
        self.on_refusal = on_refusal
        self.claim_seconds = claim_seconds
        self.max_requests = 2 if on_refusal == "retry" else 1
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self._runner = DeadlineRunner(deadline)

    def ask(
        self, requests: Sequence[CritiqueRequest], progress: ReportProgress | None = None
    ) -> list[Critique]:
        """Obtain critiques for all requests, from the cache or from the critic.

        Args:
            requests: Requests in any number. Equal requests are sent to the critic once.
            progress: Called with the number of distinct requests answered since its last call.

        Returns:
            One critique per request, in order.
        """
        keys = compute_keys(self.critic.identity(), requests)
        by_key = dict(zip(keys, requests, strict=True))
        critiques = self._obtain(by_key, progress or (lambda number: None))
        return self._apply_policy([critiques[key] for key in keys], requests)

    def look_up(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Read critiques from the cache without asking the critic.

        Args:
            requests: Requests in any number.

        Returns:
            One critique per request, in order. Requests that are not in the cache are refused.
        """
        keys = compute_keys(self.critic.identity(), requests)
        cached = self._read_final(keys)
        self.counts["hits"] += len(cached)
        self.counts["skipped"] += len(set(keys) - cached.keys())
        not_asked = Critique(text="", case="", refused=NOT_ASKED)
        return self._apply_policy([cached.get(key, not_asked) for key in keys], requests)

    def pop_counters(self) -> dict[str, float | tuple[float, float]]:
        """Return the counts since the last call, and reset them.

        Returns:
            Distinct requests: ``critique_hits`` (found in the cache), ``critique_misses`` (sent to
            the critic) and ``critique_skipped`` (not in the cache and not sent). All requests:
            ``critique_refused``, ``critique_fallback`` (answered with the reference solution),
            ``critique_failed`` and, among these, ``critique_timed_out``. Costs of the critic:
            ``critique_tokens`` and ``critique_seconds``. If there were usable critiques,
            ``critique_copied``: the attempts' steps that they copy unchanged, and all their steps.
        """
        counts: dict[str, float | tuple[float, float]] = {
            f"critique_{name}": float(self.counts[name]) for name in COUNTERS
        }
        counts["critique_seconds"] = self.seconds
        steps = self.counts["copied"] + self.counts["changed"]
        if steps:
            counts["critique_copied"] = (float(self.counts["copied"]), float(steps))
        self.counts.clear()
        self.seconds = 0.0
        return counts

    def _obtain(
        self, requests: dict[Key, CritiqueRequest], progress: ReportProgress
    ) -> dict[Key, Critique]:
        """Obtain critiques of distinct requests, and wait for those that another process asks."""
        critiques = self._read_final(requests)
        progress(len(critiques))
        sent: set[Key] = set()
        while missing := [key for key in requests if key not in critiques]:
            with claim_keys(
                self.cache, missing, max_requests=self.max_requests, seconds=self.claim_seconds
            ) as claimed:
                failures = self._ask_critic({key: requests[key] for key in claimed}, progress)
            sent.update(claimed)
            answered = self._read_final([key for key in missing if key not in failures])
            progress(len(answered.keys() - set(claimed)))
            critiques |= failures | answered
            if not claimed and len(critiques) < len(requests):
                time.sleep(_POLL_SECONDS)
        self.counts["misses"] += len(sent)
        self.counts["hits"] += len(requests) - len(sent)
        return critiques

    def _read_final(self, keys: Iterable[Key]) -> dict[Key, Critique]:
        cached = self.cache.get_many(list(keys))
        return {
            key: entry.critique
            for key, entry in cached.items()
            if entry.is_final(self.max_requests)
        }

    def _ask_critic(
        self, requests: dict[Key, CritiqueRequest], progress: ReportProgress
    ) -> dict[Key, Critique]:
        """Ask the critic, and write its critiques to the cache as they arrive.

        Returns:
            The failures by key. They are not cached.
        """
        refusals = self.cache.get_many(list(requests))
        keys = list(requests)
        asked = [
            replace(requests[key], previous_refusal=refusals[key].critique.refused)
            if key in refusals
            else requests[key]
            for key in keys
        ]
        times_asked = [refusals[key].times_asked + 1 if key in refusals else 1 for key in keys]
        failures: dict[Key, Critique] = {}
        with closing(_gather_batches(self._stream(asked))) as batches:
            for batch in batches:
                self._count_costs(batch)
                answers = [(i, critique) for i, critique in batch if not is_failure(critique)]
                failures |= {keys[i]: critique for i, critique in batch if is_failure(critique)}
                self.cache.put_many(
                    self.critic.identity(),
                    [(asked[i], critique) for i, critique in answers],
                    times_asked=[times_asked[i] for i, _ in answers],
                )
                final = sum(
                    critique.refused is None or times_asked[i] >= self.max_requests
                    for i, critique in answers
                )
                progress(final + len(batch) - len(answers))
        return failures

    def _stream(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        """Yield the critic's critiques, and a failure per open request if the critic hangs."""
        open_requests = set(range(len(requests)))
        try:
            for i, critique in self._runner.stream(self.critic, requests):
                open_requests.discard(i)
                yield i, sanitize_critique(critique)
        except CriticTimeoutError as error:
            self.counts["timed_out"] += len(open_requests)
            for i in sorted(open_requests):
                yield i, make_failure(f"timeout: {error}")

    def _count_costs(self, batch: Sequence[tuple[int, Critique]]) -> None:
        self.counts["failed"] += sum(is_failure(critique) for _, critique in batch)
        self.counts["tokens"] += sum(critique.tokens for _, critique in batch)
        self.seconds += sum(critique.seconds for _, critique in batch)

    def _apply_policy(
        self, critiques: Sequence[Critique], requests: Sequence[CritiqueRequest]
    ) -> list[Critique]:
        """Count the critiques, and treat refused ones as ``on_refusal`` says."""
        for critique in critiques:
            if critique.refused is None:
                self.counts["copied"] += len(critique.copied)
                self.counts["changed"] += len(critique.changed)
            else:
                self.counts["refused"] += 1
        return [self._replace_refused(c, r) for c, r in zip(critiques, requests, strict=True)]

    def _replace_refused(self, critique: Critique, request: CritiqueRequest) -> Critique:
        reference = request.question.reference
        if critique.refused is None or self.on_refusal != "reference" or reference is None:
            return critique
        self.counts["fallback"] += 1
        return Critique(text=reference, case=critique.case)


def _gather_batches(
    stream: Iterator[tuple[int, Critique]],
) -> Generator[list[tuple[int, Critique]], None, None]:
    """Gather a stream into batches, each of which is written in one transaction.

    A batch is passed on after at most ``_FLUSH_SECONDS``, so a crash loses little work.
    """
    batch: list[tuple[int, Critique]] = []
    since = time.monotonic()
    try:
        for item in stream:
            batch.append(item)
            if len(batch) >= _FLUSH_CRITIQUES or time.monotonic() - since > _FLUSH_SECONDS:
                yield batch
                batch, since = [], time.monotonic()
    except (Exception, KeyboardInterrupt, SystemExit):
        # Critiques that arrived before the critic was stopped are kept.
        if batch:
            yield batch
        raise
    if batch:
        yield batch
