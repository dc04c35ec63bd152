"""The student's own prompt as context."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.types import Message, Rollout


class SameQuestion(TeacherContext):
    """Show the teacher the student's prompt: on-policy distillation without privileged context.

    Every rollout has a teacher. With ``FrozenTeacher`` and ``PolicyGradient(kl=...)`` the teacher
    is GRPO's reference policy (arXiv 2402.03300). With ``LiveTeacher`` the loss is 0.

    Args:
        template: Never shown: the prompt is the student's.
        max_prompt_tokens: Maximum length of the prompt, in tokens. Nothing can be cut, so a longer
            prompt gives no teacher. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only.

    Raises:
        ValueError: As :class:`TeacherContext`.
    """

    template = "{question}"

    def fields(self, rollout: Rollout) -> Mapping[str, str]:
        """Return no fields: the prompt is the question alone."""
        return {}

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Return the student's prompt."""
        return rollout.question.messages
