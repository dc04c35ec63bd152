"""What a context may ask of the LightningModule that hosts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.types import Message


class ContextHost(Protocol):
    """The whole interface between a teacher context and its LightningModule.

    ``tokenizer`` and ``teacher_context`` are required of every host. The methods are needed only by
    contexts that write texts, log means, or store texts of a frozen teacher;
    :class:`~lightning_sd.modules.SelfDistillModule` has them all.
    """

    tokenizer: Any
    """A transformers tokenizer with a chat template. It may be loaded after ``setup``."""
    teacher_context: Any
    """None at first; the context puts itself here in ``setup``."""

    def write(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        sampler: Sampler,
        teacher: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[Completion]:
        """Generate one text per prompt, with the student's or the teacher's parameters."""
        ...

    def log_mean(self, name: str, total: Tensor | float, number: float) -> None:
        """Add to the mean that is logged as ``train/name`` at the next optimizer step."""
        ...

    def frozen_teacher_fingerprint(self) -> str | None:
        """Identify the teacher's parameters if they never change; None if they may."""
        ...
