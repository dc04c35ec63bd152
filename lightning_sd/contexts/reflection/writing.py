"""Who reflects on failed attempts, and who makes lessons of the reflections."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lightning_sd.contexts.reflection.playbook import Addition, Playbook, Tag
from lightning_sd.rollout.base import Sampler
from lightning_sd.types import Message, Rollout

Write = Callable[[Sequence[Sequence[Message]], Sampler], list[str]]
"""Lets the current student write one text for each prompt; its thinking is taken out."""


@dataclass(frozen=True)
class Note:
    """A reflection on one failed attempt."""

    question: str
    """The bare question."""
    text: str
    """What the teacher is shown."""
    insight: str = ""
    """What a curator may make a lesson of."""
    tags: Mapping[str, Tag] = field(default_factory=dict)
    """Which lessons of the playbook helped or harmed, by their ids."""


class Reflector(ABC):
    """Reflects on failed attempts."""

    required_evidence: frozenset[str] = frozenset()
    """Evidence beside the verdict; see :attr:`TeacherContext.required_evidence`."""

    @abstractmethod
    def reflect(
        self, rollouts: Sequence[Rollout], playbook: Playbook, write: Write
    ) -> list[Note | None]:
        """One note a rollout; None: none that could be used.

        Args:
            rollouts: Failed attempts of this rank, with their evidence; maybe none.
            playbook: Whose lessons are tagged.
            write: For reflectors that let the student write.
        """


class Curator(ABC):
    """Turns notes into lessons. It may only add; CONCISE drops."""

    @abstractmethod
    def curate(
        self, notes: Sequence[Note], playbook: Playbook, write: Write
    ) -> list[tuple[Addition, ...] | None]:
        """The lessons of each note; None: nothing that could be used was written.

        Args:
            notes: Of all ranks; asked on rank 0 alone.
            playbook: With the tags of the same notes counted.
            write: For curators that let the student write.
        """
