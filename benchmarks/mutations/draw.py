"""Draw mutants at random, as many from each room as its share of all mutants."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from benchmarks.grid import ROOT
from benchmarks.mutations.heart import ROOMS, list_room
from benchmarks.mutations.mutate import Mutant, list_mutants


@dataclass(frozen=True)
class Drawn:
    """One mutant of the package's heart."""

    room: str
    path: Path
    text: str
    """The line, without indentation."""
    mutant: Mutant
    key: str
    """Unique name that stays the same until the line changes."""

    @property
    def file(self) -> str:
        return str(self.path.relative_to(ROOT))


def list_drawable(room: str) -> list[Drawn]:
    """List all mutants of a room."""
    drawable, counts = [], Counter[str]()
    for path in list_room(room):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        file = path.relative_to(ROOT)
        for mutant in list_mutants(source):
            text = lines[mutant.line - 1].strip()
            name = f"{file}: {text}: {mutant.change}"
            counts[name] += 1
            key = hashlib.sha256(f"{name}: {counts[name]}".encode()).hexdigest()[:16]
            drawable.append(Drawn(room, path, text, mutant, key))
    return drawable


def draw(number: int, seed: int, known: Collection[str]) -> list[Drawn]:
    """Draw ``number`` mutants over all rooms, without those whose key is known."""
    rng = random.Random(seed)
    rooms = [list_drawable(room) for room in ROOMS]
    share = number / sum(map(len, rooms))
    drawn = []
    for mutants in rooms:
        fresh = [mutant for mutant in mutants if mutant.key not in known]
        drawn += rng.sample(fresh, round(share * len(mutants)))
    rng.shuffle(drawn)
    return drawn
