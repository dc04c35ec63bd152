"""The interfaces of reflectors and curators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lightning_sd.contexts.reflection.playbook import Addition, Playbook, Tag
from lightning_sd.rollout.base import Sampler
from lightning_sd.types import Message, Rollout

WriteTexts = Callable[[Sequence[Sequence[Message]], Sampler], list[str]]
"""Lets the current student write one text per prompt; the text's thinking is removed."""


@dataclass(frozen=True)
class Note:
    """A reflection on one failed attempt."""

    question: str
    """The question alone, without instructions."""
    text: str
    """The reflection, as the teacher sees it."""
    insight: str = ""
    """The part that a curator may turn into a lesson."""
    tags: Mapping[str, Tag] = field(default_factory=dict)
    """Whether lessons of the playbook helped or harmed, by the lessons' ids."""


class Reflector(ABC):
    """Reflects on failed attempts."""

    required_evidence: frozenset[str] = frozenset()
    """Evidence in addition to the verdict; see :attr:`TeacherContext.required_evidence`."""

    @abstractmethod
    def reflect(
        self, rollouts: Sequence[Rollout], playbook: Playbook, write: WriteTexts
    ) -> list[Note | None]:
        """Return one note per rollout; None: no usable reflection.

        Args:
            rollouts: Failed attempts of this rank with their evidence; may be empty.
            playbook: The lessons to tag.
            write: Lets the student write, for reflectors that need a model.
        """


class Curator(ABC):
    """Turns notes into lessons. It only adds lessons; :class:`Concise` removes them."""

    @abstractmethod
    def curate(
        self, notes: Sequence[Note], playbook: Playbook, write: WriteTexts
    ) -> list[tuple[Addition, ...] | None]:
        """Return the lessons of each note; None: no usable text was written.

        Called on rank 0 only.

        Args:
            notes: Notes of all ranks.
            playbook: The playbook, with the notes' tags already counted.
            write: Lets the student write, for curators that need a model.
        """
