"""Reflections and lessons from critiques, without a text of the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lightning_sd.contexts.reflection.base import Curator, Note, Reflector, WriteTexts
from lightning_sd.contexts.reflection.playbook import Addition, Playbook, Tag
from lightning_sd.text.steps import parse_steps
from lightning_sd.types import Rollout


@dataclass(frozen=True)
class CritiqueReflector(Reflector):
    """Use the critique of an attempt as the reflection on it.

    It serves small models that cannot write a reflection, with a critic such as ``RuleCritic``. The
    insight is the first step that the critique changes or adds. A lesson is tagged helpful if it is
    a step of the critique, and harmful if it is a step of the attempt that the critique lacks.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"critique"})  # type: ignore[misc]

    def reflect(
        self, rollouts: Sequence[Rollout], playbook: Playbook, write: WriteTexts
    ) -> list[Note | None]:
        """Return one note per rollout; None: the critique is missing, empty or refused."""
        return [self._make_note(rollout, playbook) for rollout in rollouts]

    def _make_note(self, rollout: Rollout, playbook: Playbook) -> Note | None:
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
    """Use each note's insight as a lesson, unchanged."""

    section: str = "formulas and calculations"
    """Section of the playbook that gets the lessons."""

    def curate(
        self, notes: Sequence[Note], playbook: Playbook, write: WriteTexts
    ) -> list[tuple[Addition, ...] | None]:
        """Return one lesson per note that has an insight."""
        return [(Addition(self.section, note.insight),) if note.insight else () for note in notes]
