"""An expert's demonstration as context (SDFT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import DEMONSTRATION
from lightning_sd.types import Rollout


class Demonstration(TeacherContext):
    """The teacher sees an example of an answer, and is asked for one of its own (SDFT).

    The example is the question's ``extra["demonstration"]``, else its reference solution. There is
    no verifier in this method: right or wrong, every rollout has a teacher.
    """

    template = DEMONSTRATION
    cut_fields: ClassVar[tuple[str, ...]] = ("demonstration",)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The demonstration, if the data have one."""
        question = rollout.question
        found = question.extra.get("demonstration") or question.reference
        return {"demonstration": str(found)} if found else None
