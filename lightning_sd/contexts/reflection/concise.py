"""CONCISE: keeping a playbook short."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightning_sd.contexts.reflection.playbook import Item, Playbook

Policy = Literal["prioritized", "staleness"]


@dataclass(frozen=True)
class Concise:
    """CONCISE of RESD: keeps a playbook short.

    It works every ``every`` updates, and whenever there are more than ``max_items``. Both policies
    drop harmful lessons. ``prioritized`` drops all unused ones too, and if the rest is too many,
    keeps some of it at random. ``staleness`` drops unused ones only if they are more than one
    update old, and if the rest is too many, drops those whose last use is the longest ago.

    Raises:
        ValueError: A setting out of range.
    """

    policy: Policy = "prioritized"
    every: int = 4
    max_items: int = 200
    seed: int = 0
    """With the number of updates it decides which lessons stay at random."""

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ValueError(f"policy={self.policy!r}: choose one of {get_args(Policy)}.")
        for name, value in (("every", self.every), ("max_items", self.max_items)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")

    def __call__(self, playbook: Playbook) -> Playbook:
        """The same playbook, or a shorter one if it is time."""
        due = playbook.update > 0 and playbook.update % self.every == 0
        if not due and len(playbook) <= self.max_items:
            return playbook
        choose = self._prioritized if self.policy == "prioritized" else self._fresh
        return replace(playbook, items=choose(playbook))

    def _prioritized(self, playbook: Playbook) -> tuple[Item, ...]:
        helpful = [item for item in playbook.items if not (item.is_unused or item.is_harmful)]
        if len(helpful) > self.max_items:
            rng = random.Random(f"concise/{self.seed}/{playbook.update}")
            helpful = [helpful[i] for i in sorted(rng.sample(range(len(helpful)), self.max_items))]
        return tuple(helpful)

    def _fresh(self, playbook: Playbook) -> tuple[Item, ...]:
        kept = [
            item
            for item in playbook.items
            if not item.is_harmful and not (item.is_unused and playbook.update - item.added > 1)
        ]
        over = max(0, len(kept) - self.max_items)
        # A stable sort: of those that were used at the same time, the older lesson goes first.
        evicted = {item.id for item in sorted(kept, key=lambda item: item.used)[:over]}
        return tuple(item for item in kept if item.id not in evicted)
