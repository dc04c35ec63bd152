"""Reflections without a language model: the critic's repair of the attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_sd.contexts.reflection.playbook import Addition, Playbook, Tag
from lightning_sd.contexts.reflection.writing import Curator, Note, Reflector, Write
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Rollout


@dataclass(frozen=True)
class CritiqueReflector(Reflector):
    """The critique of the attempt is the reflection on it.

    For labs: with the exact ``RuleCritic`` nothing has to be written by a model that cannot. The
    insight is the first step that the critique changes or adds. A lesson counts as helpful where it
    is a step of the critique, and as harmful where it is a step of the attempt that the critique
    does not have.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"critique"})  # type: ignore[misc]

    def reflect(
        self, rollouts: Sequence[Rollout], playbook: Playbook, write: Write
    ) -> list[Note | None]:
        """See :class:`Reflector`; None where the critique was refused."""
        return [self._note(rollout, playbook) for rollout in rollouts]

    def _note(self, rollout: Rollout, playbook: Playbook) -> Note | None:
        critique = rollout.critique
        if critique is None or critique.refused is not None or not critique.text:
            return None
        old, new = parse_steps(rollout.text).steps, parse_steps(critique.text).steps
        changed = [step for i, step in enumerate(new) if old[i : i + 1] != (step,)]
        tags: dict[str, Tag] = {}
        for item in playbook.items:
            if item.text in new:
                tags[item.id] = "helpful"
            elif item.text in old:
                tags[item.id] = "harmful"
        insight = changed[0] if changed else ""
        return Note(rollout.question.text, critique.text, insight, tags)


@dataclass(frozen=True)
class InsightCurator(Curator):
    """Each note's insight is a lesson as it stands."""

    section: str = "formulas and calculations"

    def curate(
        self, notes: Sequence[Note], playbook: Playbook, write: Write
    ) -> list[tuple[Addition, ...] | None]:
        """See :class:`Curator`."""
        return [(Addition(self.section, note.insight),) if note.insight else () for note in notes]
