"""Teacher contexts of the study's ablations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import ClassVar

from benchmarks.feedback_alignment import forms
from lightning_sd.contexts import StepAlignedCritique
from lightning_sd.types import Rollout


class CritiqueForm(StepAlignedCritique):
    """A step-aligned critique in another form, with the same wording of the prompt."""

    form: ClassVar[forms.Form] = staticmethod(forms.partial)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the form's text; None if the critique was refused or the form is empty."""
        if super().fields(rollout) is None or rollout.critique is None:
            return None
        text = type(self).form(rollout.text, rollout.critique)
        return {"critique": text} if text else None


class FullRepetition(CritiqueForm):
    """The wrong step quoted, then corrected."""

    form = staticmethod(forms.full_repetition)


class Omission(CritiqueForm):
    """Right steps called right and not repeated."""

    form = staticmethod(forms.omission)


class ReferencePhrasing(CritiqueForm):
    """The attempt's steps in the reference's words."""

    form = staticmethod(forms.reference_phrasing)


class NoAnswer(CritiqueForm):
    """Neither the answer nor the last step."""

    form = staticmethod(forms.no_answer)


class OtherAttempt(StepAlignedCritique):
    """The critique of another attempt at the same question: all information, no alignment.

    A hash of the attempt selects one of the siblings that have a different text and a critique.
    Without such a sibling there is no teacher.
    """

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the chosen sibling's critique."""
        own = super().fields
        found = [own(sibling) for sibling in rollout.siblings if sibling.text != rollout.text]
        others = [fields["critique"] for fields in found if fields]
        if not others:
            return None
        digest = hashlib.sha256(f"{rollout.question.id}\n{rollout.text}".encode()).digest()
        return {"critique": others[int.from_bytes(digest[:8], "big") % len(others)]}
