"""CONCISE: keep a playbook short (RESD)."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightning_sd.contexts.reflection.playbook import Item, Playbook

Policy = Literal["prioritized", "staleness"]


@dataclass(frozen=True)
class Concise:
    """CONCISE of RESD: removes lessons from a playbook.

    Both policies remove harmful lessons: those that harmed at least as often as they helped.

    Raises:
        ValueError: A setting is out of range.
    """

    policy: Policy = "prioritized"
    """``prioritized`` also removes all unused lessons, and keeps a random ``max_items`` of the
    rest. ``staleness`` also removes unused lessons that are more than one update old, and keeps the
    ``max_items`` of the rest that were used last."""
    every: int = 4
    """The playbook is shortened at every n-th update, and whenever it exceeds ``max_items``."""
    max_items: int = 200
    """Maximum number of lessons after shortening."""
    seed: int = 0
    """Seed of the random choice, combined with the number of updates."""

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy={self.policy!r}: choose one of {get_args(Policy)}.")
        for name, value in (("every", self.every), ("max_items", self.max_items)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")

    def __call__(self, playbook: Playbook) -> Playbook:
        """Return the playbook, shortened if an update is due; see the class."""
        due = playbook.update > 0 and playbook.update % self.every == 0
        if not due and len(playbook) <= self.max_items:
            return playbook
        choose = self._choose_helpful if self.policy == "prioritized" else self._choose_recent
        return replace(playbook, items=choose(playbook))

    def _choose_helpful(self, playbook: Playbook) -> tuple[Item, ...]:
        helpful = [item for item in playbook.items if not (item.is_unused or item.is_harmful)]
        if len(helpful) > self.max_items:
            rng = random.Random(f"concise/{self.seed}/{playbook.update}")
            helpful = [helpful[i] for i in sorted(rng.sample(range(len(helpful)), self.max_items))]
        return tuple(helpful)

    def _choose_recent(self, playbook: Playbook) -> tuple[Item, ...]:
        kept = [
            item
            for item in playbook.items
            if not item.is_harmful and not (item.is_unused and playbook.update - item.added > 1)
        ]
        over = max(0, len(kept) - self.max_items)
        # The sort is stable: of lessons last used at the same update, the oldest is removed first.
        evicted = {item.id for item in sorted(kept, key=lambda item: item.used)[:over]}
        return tuple(item for item in kept if item.id not in evicted)
