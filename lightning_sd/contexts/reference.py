"""The reference solution as context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import REFERENCE
from lightning_sd.types import Rollout


class ReferenceSolution(TeacherContext):
    """The teacher sees the worked reference solution, the same for every attempt (OPSD, RefSol)."""

    template = REFERENCE
    cut_fields: ClassVar[tuple[str, ...]] = ("reference",)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The question's reference solution, if the data have one."""
        reference = rollout.question.reference
        return {"reference": reference} if reference else None
