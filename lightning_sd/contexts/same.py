"""The question alone."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.types import Message, Rollout


class SameQuestion(TeacherContext):
    """The teacher sees what the student sees: plain on-policy distillation.

    With ``FrozenTeacher`` and ``PolicyGradient(kl=...)`` it is GRPO's reference policy.
    """

    template = "{question}"

    def fields(self, rollout: Rollout) -> Mapping[str, str]:
        """Nothing beside the question."""
        return {}

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """The student's own prompt."""
        return rollout.question.messages
