"""No teacher at all: the reward alone trains (GRPO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.types import Rollout


class BinaryReward(TeacherContext):
    """Nobody sees anything; use it with ``PolicyGradient``, which reads the verifier's reward."""

    gives: ClassVar[bool] = False
    template = "{question}"

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """None for every rollout."""
        return None
