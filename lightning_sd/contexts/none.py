"""No teacher: the reward alone trains (GRPO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.types import Rollout


class NoContext(TeacherContext):
    """Give no view of any rollout, for ``PolicyGradient``, which reads only the reward.

    No rollout has a teacher, and objectives that require one refuse this context before training.

    Args:
        template: Never shown.
        max_prompt_tokens: Never reached.
        template_kwargs: Never used.
    """

    gives_views: ClassVar[bool] = False
    template = "{question}"

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return None for every rollout."""
        return None
