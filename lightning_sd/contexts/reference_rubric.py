"""The ground-truth rubric as context for a model that writes rubrics (RCSD, stage I)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.rubrics.prompts import DESIGN_WITH_RUBRIC
from lightning_sd.contexts.rubrics.sources import read_rubric
from lightning_sd.types import Rollout


class ReferenceRubric(TeacherContext):
    """Show the teacher of a rubric writer the ground-truth rubric after the student's prompt.

    It is made for :class:`~lightning_sd.tasks.RubricWritingTask`: the text of its questions holds
    the instructions, the question and its reference answer. A rollout has no teacher if its
    question has no rubric in ``extra["rubric"]``.

    Args:
        template: Wording of the last user turn, with ``{question}`` and ``{rubric}``.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. The end of the rubric
            is cut to fit. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only.

    Raises:
        ValueError: As :class:`TeacherContext`; or, in training, ``extra["rubric"]`` is malformed.
    """

    template = DESIGN_WITH_RUBRIC
    cut_fields: ClassVar[tuple[str, ...]] = ("rubric",)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the ground-truth rubric as a JSON array, or None if the dataset has none."""
        rubric = read_rubric(rollout.question)
        return None if rubric is None else {"rubric": rubric.render()}
