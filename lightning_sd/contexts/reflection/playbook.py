"""The playbook: short lessons that all questions share, and how often each helped or harmed.

Plain data: each operation gives a new playbook, so that what is saved, sent to other ranks and
shown to the teacher is one and the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

Tag = Literal["helpful", "harmful", "neutral"]

SECTIONS = (
    "strategies and insights",
    "formulas and calculations",
    "code snippets and templates",
    "common mistakes",
    "problem-solving heuristics",
    "context clues and indicators",
    "others",
)
"""In the order in which they are shown; what belongs to none of the others goes into the last."""


@dataclass(frozen=True)
class Addition:
    """A lesson that a curator wants added."""

    section: str
    text: str


@dataclass(frozen=True)
class Item:
    """One lesson."""

    id: str
    section: str
    text: str
    helpful: int = 0
    harmful: int = 0
    added: int = 0
    """Update at which it came."""
    used: int = 0
    """Last update at which it was tagged helpful or harmful; at first, that at which it came."""

    @property
    def is_unused(self) -> bool:
        """Nobody has tagged it helpful or harmful."""
        return self.helpful + self.harmful == 0

    @property
    def is_harmful(self) -> bool:
        """It harmed at least as often as it helped, and at least once."""
        return self.harmful >= self.helpful and self.harmful > 0

    def line(self) -> str:
        """As the teacher and the reflector see it.

        Example:
            >>> Item("p3", "others", "carry the tens", helpful=2).line()
            '[p3] helpful=2 harmful=0 :: carry the tens'
        """
        return f"[{self.id}] helpful={self.helpful} harmful={self.harmful} :: {self.text}"


@dataclass(frozen=True)
class Playbook:
    """All lessons, in the order in which they came."""

    items: tuple[Item, ...] = ()
    serial: int = 0
    """Lessons that there ever were, dropped ones too: no id is given twice."""
    update: int = 0
    """Context updates so far."""

    def __len__(self) -> int:
        return len(self.items)

    def extended(self, additions: Iterable[Addition]) -> Playbook:
        """With further lessons; those that stand there already, or say nothing, are left out.

        Example:
            >>> new = Playbook().extended([Addition("common mistakes", "3*7 is no 2")])
            >>> print(new.render())
            ## common mistakes
            [p1] helpful=0 harmful=0 :: 3*7 is no 2
        """
        items, serial = list(self.items), self.serial
        known = {item.text.casefold() for item in items}
        for addition in additions:
            text = " ".join(addition.text.split())
            if not text or text.casefold() in known:
                continue
            known.add(text.casefold())
            serial += 1
            section = " ".join(addition.section.replace("_", " ").replace("&", "and").split())
            section = section.casefold() if section.casefold() in SECTIONS else SECTIONS[-1]
            items.append(Item(f"p{serial}", section, text, added=self.update, used=self.update))
        return replace(self, items=tuple(items), serial=serial)

    def tagged(self, tags: Sequence[Mapping[str, Tag]]) -> Playbook:
        """With tags counted.

        Args:
            tags: From ids to tags, one mapping a reflection; ids that are gone are passed over.
        """
        counts = {
            item.id: [sum(found.get(item.id) == kind for found in tags) for kind in get_args(Tag)]
            for item in self.items
        }
        items = []
        for item in self.items:
            helpful, harmful, _ = counts[item.id]
            used = self.update if helpful + harmful else item.used
            items.append(
                replace(
                    item,
                    helpful=item.helpful + helpful,
                    harmful=item.harmful + harmful,
                    used=used,
                )
            )
        return replace(self, items=tuple(items))

    def advanced(self) -> Playbook:
        """One context update later."""
        return replace(self, update=self.update + 1)

    def render(self) -> str:
        """All lessons, section by section; empty without any."""
        lines = []
        for section in SECTIONS:
            members = [item.line() for item in self.items if item.section == section]
            lines += [f"## {section}", *members] if members else []
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Plain data, as a checkpoint may hold it."""
        return {
            "items": [asdict(item) for item in self.items],
            "serial": self.serial,
            "update": self.update,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Playbook:
        """What :meth:`state_dict` gave."""
        items = tuple(Item(**item) for item in state["items"])
        return cls(items, int(state["serial"]), int(state["update"]))
