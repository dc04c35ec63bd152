"""The expert's rubric as context for writing rubrics (RCSD, stage I)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.rubrics.sources import stored_rubric
from lightning_sd.contexts.rubrics.wording import DESIGN_WITH_RUBRIC
from lightning_sd.types import Rollout


class ReferenceRubric(TeacherContext):
    """The teacher of a rubric writer sees the ground-truth rubric beside the student's prompt.

    For the questions of :class:`~lightning_sd.tasks.RubricWritingTask`, whose text already holds
    the designer's instructions, the question and its reference answer. A question without a
    ground truth has no teacher.
    """

    template = DESIGN_WITH_RUBRIC
    cut_fields: ClassVar[tuple[str, ...]] = ("rubric",)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The rubric as the JSON array that is to be written."""
        rubric = stored_rubric(rollout.question)
        return None if rubric is None else {"rubric": rubric.render()}
