"""The step-aligned critique: the attempt's own steps, repaired by a frozen critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import STEP_ALIGNED
from lightning_sd.types import Rollout


class StepAlignedCritique(TeacherContext):
    """The teacher sees the critic's repair of this very attempt (arXiv 2606.11173).

    The attempt itself is not shown: a quoted mistake would be copied. Nor is the reference, which
    only the critic sees. A rollout whose critique was refused has no teacher.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"critique"})
    template = STEP_ALIGNED
    cut_fields: ClassVar[tuple[str, ...]] = ("critique",)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The critique's text, unless there is none that may be used."""
        critique = rollout.critique
        if critique is None or critique.refused is not None or not critique.text:
            return None
        return {"critique": critique.text}
