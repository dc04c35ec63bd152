"""The playbook: short lessons that all questions share, and how often each helped or harmed.

A playbook is immutable: each operation returns a new one.
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
"""Sections in the order in which they are shown. Lessons with an unknown section go to the last."""


@dataclass(frozen=True)
class Addition:
    """A lesson that a curator adds."""

    section: str
    """One of :data:`SECTIONS`; any other text means the last one."""
    text: str
    """The lesson."""


@dataclass(frozen=True)
class Item:
    """One lesson."""

    id: str
    """Such as ``p3``; unique, also among removed lessons."""
    section: str
    """One of :data:`SECTIONS`."""
    text: str
    """The lesson."""
    helpful: int = 0
    """How often it was tagged helpful."""
    harmful: int = 0
    """How often it was tagged harmful."""
    added: int = 0
    """The update that added it."""
    used: int = 0
    """The last update that tagged it helpful or harmful; before that, the update that added it."""

    @property
    def is_unused(self) -> bool:
        """Whether it was never tagged helpful or harmful."""
        return self.helpful + self.harmful == 0

    @property
    def is_harmful(self) -> bool:
        """Whether it harmed at least once, and at least as often as it helped."""
        return self.harmful >= self.helpful and self.harmful > 0

    def render(self) -> str:
        """Write the lesson as a line, as the teacher and the reflector see it.

        Example:
            >>> Item("p3", "others", "carry the tens", helpful=2).render()
            '[p3] helpful=2 harmful=0 :: carry the tens'
        """
        return f"[{self.id}] helpful={self.helpful} harmful={self.harmful} :: {self.text}"


@dataclass(frozen=True)
class Playbook:
    """All lessons, with the number of updates so far."""

    items: tuple[Item, ...] = ()
    """The lessons, oldest first."""
    serial: int = 0
    """Number of lessons ever added, removed ones included, so that no id is used twice."""
    update: int = 0
    """Number of updates so far."""

    def __len__(self) -> int:
        return len(self.items)

    def add(self, additions: Iterable[Addition]) -> Playbook:
        """Return a playbook with more lessons; known and empty ones are skipped.

        Args:
            additions: New lessons.

        Example:
            >>> new = Playbook().add([Addition("common mistakes", "3*7 is no 2")])
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

    def count_tags(self, tags: Sequence[Mapping[str, Tag]]) -> Playbook:
        """Return a playbook with tags counted.

        Args:
            tags: One mapping from lesson ids to tags per reflection; unknown ids are skipped.
        """
        counts = {
            item.id: [sum(one.get(item.id) == kind for one in tags) for kind in get_args(Tag)]
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

    def advance(self) -> Playbook:
        """Return the playbook with its number of updates increased by one."""
        return replace(self, update=self.update + 1)

    def render(self) -> str:
        """Write all lessons, section by section; empty if there are none."""
        lines = []
        for section in SECTIONS:
            members = [item.render() for item in self.items if item.section == section]
            lines += [f"## {section}", *members] if members else []
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Return the playbook as plain data."""
        return {
            "items": [asdict(item) for item in self.items],
            "serial": self.serial,
            "update": self.update,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Playbook:
        """Make a playbook from what :meth:`state_dict` returned."""
        items = tuple(Item(**item) for item in state["items"])
        return cls(items, int(state["serial"]), int(state["update"]))
