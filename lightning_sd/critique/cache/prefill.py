"""Fill the critique cache before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_sd.critique.base import CritiqueRequest, is_failure
from lightning_sd.critique.cache.service import CritiqueService

_BATCHES_PER_ROUND = 4
"""The critic's batches per round. One process claims a whole round, so other processes cannot
share the work on it."""


@dataclass(frozen=True)
class PrefillReport:
    """The result of filling the cache."""

    requests: int
    """Number of requests, repeated ones included."""
    cases: Mapping[str, int]
    """Usable critiques by case."""
    refused: Mapping[str, int]
    """Refused critiques by reason."""
    failed: tuple[tuple[str, str], ...]
    """Requests without a critique, which are not cached: pairs of question id and reason."""


def prefill(
    service: CritiqueService, requests: Sequence[CritiqueRequest], *, progress: bool = False
) -> PrefillReport:
    """Obtain critiques round by round, and write each round to the cache before the next starts.

    Args:
        service: Critic and cache.
        requests: Requests, in any number.
        progress: Show a progress bar. Critiques that were already cached count as done.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    cases: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    failed: list[tuple[str, str]] = []
    size = service.critic.batch_size * _BATCHES_PER_ROUND
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("Critiques", total=len(requests))
        for start in range(0, len(requests), size):
            batch = requests[start : start + size]
            critiques = service.ask(batch, progress=lambda number: bar.advance(task, number))
            # The service counts repeated requests once, so the bar is set to the exact number.
            bar.update(task, completed=start + len(batch))
            for request, critique in zip(batch, critiques, strict=True):
                if is_failure(critique):
                    failed.append((request.question.id, critique.refused or ""))
                elif critique.refused is not None:
                    refused[critique.refused] += 1
                else:
                    cases[critique.case] += 1
    return PrefillReport(len(requests), dict(cases), dict(refused), tuple(failed))
