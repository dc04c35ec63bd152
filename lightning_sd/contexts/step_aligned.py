"""The step-aligned critique as context: the attempt's own steps, repaired by a frozen critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import STEP_ALIGNED
from lightning_sd.types import Rollout


class StepAlignedCritique(TeacherContext):
    """Show the teacher the critic's repair of the same attempt (StepAlignFB, arXiv 2606.11173).

    The critique repeats the attempt's correct steps word for word and corrects the first wrong one.
    The attempt is not shown, because a teacher tends to copy a quoted mistake. The reference is not
    shown either; only the critic sees it. A rollout has no teacher if its critique is missing,
    empty or refused.

    Args:
        template: Wording of the last user turn, with ``{question}`` and ``{critique}``.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. The end of the
            critique is cut to fit. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only, such as
            Qwen3's ``{enable_thinking: true}``.

    Raises:
        ValueError: As :class:`TeacherContext`.

    Example:
        >>> from lightning_sd.types import Critique, Question, Rollout
        >>> question = Question("1", "7 + 5?", ({"role": "user", "content": "7 + 5?"},))
        >>> repaired = Critique("7 + 5 = 12", case="D", changed=(1,))
        >>> rollout = Rollout(question, (1,), "7 + 5 = 11", group=0, critique=repaired)
        >>> print(StepAlignedCritique().views([rollout])[0].messages[-1]["content"])
        7 + 5?
        Here is a checked solution, step by step:
        7 + 5 = 12
        Now solve it.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"critique"})
    template = STEP_ALIGNED
    cut_fields: ClassVar[tuple[str, ...]] = ("critique",)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the critique's text, or None if there is none that may be used."""
        critique = rollout.critique
        if critique is None or critique.refused is not None or not critique.text:
            return None
        return {"critique": critique.text}
