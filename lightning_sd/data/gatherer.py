"""Gather one critique per rollout, and count the rollouts that get none."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

from lightning_sd.critique.base import CritiqueRequest, is_failure
from lightning_sd.critique.reasons import REASON_NAMES, name_reason
from lightning_sd.data.requests import read_stored_critique, reuse_correct_attempt
from lightning_sd.types import Critique

AskAbout = Literal["all", "failed"]
AskCritic = Callable[[Sequence[CritiqueRequest]], Sequence[Critique]]


class CritiqueGatherer:
    """Takes critiques from the data, from correct attempts, or from the critic, in this order.

    Args:
        ask_about: ``all`` sends every attempt without a stored critique to the critic. ``failed``
            uses correct attempts in step form as their own critiques.
    """

    def __init__(self, ask_about: AskAbout) -> None:
        self.ask_about = ask_about
        self._unusable: dict[str, int] = {}

    def gather(self, requests: Sequence[CritiqueRequest], ask_critic: AskCritic) -> list[Critique]:
        """Return one critique per request, in order.

        Args:
            requests: One request per rollout.
            ask_critic: Called with the requests that need the critic, if there are any.
        """
        critiques = [self._find_free_critique(request) for request in requests]
        remaining = [r for r, c in zip(requests, critiques, strict=True) if c is None]
        answers = iter(ask_critic(remaining) if remaining else ())
        gathered = [next(answers) if critique is None else critique for critique in critiques]
        self._count_unusable(gathered)
        return gathered

    def pop_counters(self) -> dict[str, float]:
        """Return ``no_teacher/<reason>`` counts since the last call, and reset them.

        All names are present after the first call of :meth:`gather`; before it there are none.
        """
        counts = {f"no_teacher/{name}": float(n) for name, n in self._unusable.items()}
        self._unusable = dict.fromkeys(self._unusable, 0)
        return counts

    def _find_free_critique(self, request: CritiqueRequest) -> Critique | None:
        stored = read_stored_critique(request)
        if stored is None and self.ask_about == "failed":
            return reuse_correct_attempt(request)
        return stored

    def _count_unusable(self, critiques: Sequence[Critique]) -> None:
        self._unusable = {name: self._unusable.get(name, 0) for name in REASON_NAMES}
        for critique in critiques:
            name = name_reason(critique)
            if name is not None:
                self._unusable[name] += 1
            if is_failure(critique):
                # Python shows a warning with the same text once.
                warnings.warn(
                    f"critic: {critique.refused}. A rollout without a critique has no teacher; "
                    "these rollouts are logged as no_teacher/critic_failed.",
                    stacklevel=2,
                )
