"""Filling the critique cache ahead of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_sd.critique.base import CritiqueRequest, is_failure
from lightning_sd.critique.cache.service import CritiqueService

_ROUND = 4
"""Batches of the critic that are asked for at once: so much another process may not take over."""


@dataclass(frozen=True)
class PrefillReport:
    """What came of filling the cache."""

    requests: int
    cases: Mapping[str, int]
    """Usable critiques by case."""
    refused: Mapping[str, int]
    """Refusals by reason."""
    failed: tuple[tuple[str, str], ...]
    """What could not be had, and is not cached: question id and reason."""


def prefill(
    service: CritiqueService, requests: Sequence[CritiqueRequest], *, progress: bool = False
) -> PrefillReport:
    """Have requests criticised round by round, each written to the cache before the next.

    Args:
        service: Critic and cache.
        requests: Any number.
        progress: Show a progress bar, which counts what was cached before as done.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    cases: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    failed: list[tuple[str, str]] = []
    size = service.critic.batch_size * _ROUND
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("Critiques", total=len(requests))
        for start in range(0, len(requests), size):
            chunk = requests[start : start + size]
            critiques = service.ask(chunk, progress=lambda number: bar.advance(task, number))
            # Repeated requests were settled as one.
            bar.update(task, completed=start + len(chunk))
            for request, critique in zip(chunk, critiques, strict=True):
                if is_failure(critique):
                    failed.append((request.question.id, critique.refused or ""))
                elif critique.refused is not None:
                    refused[critique.refused] += 1
                else:
                    cases[critique.case] += 1
    return PrefillReport(len(requests), dict(cases), dict(refused), tuple(failed))
