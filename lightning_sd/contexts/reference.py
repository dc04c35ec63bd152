"""The reference solution as context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import REFERENCE
from lightning_sd.types import Question, Rollout


class ReferenceSolution(TeacherContext):
    """Show the teacher the worked reference solution, the same for every attempt (OPSD, RefSol).

    A rollout has no teacher if its question has no reference solution. RefSol is the baseline of
    arXiv 2606.11173.

    Args:
        template: Wording of the last user turn, with ``{question}`` and ``{reference}``.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. The end of the
            reference is cut to fit. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only.

    Raises:
        ValueError: As :class:`TeacherContext`.

    Example:
        >>> from lightning_sd.types import Question, Rollout
        >>> turn = {"role": "user", "content": "7 + 5?"}
        >>> question = Question("1", "7 + 5?", (turn,), reference="7 + 5 = 12")
        >>> view = ReferenceSolution().views([Rollout(question, (1,), "11", group=0)])[0]
        >>> print(view.messages[-1]["content"])
        7 + 5?
        Here is a reference solution:
        7 + 5 = 12
        Now solve it.
    """

    template = REFERENCE
    cut_fields: ClassVar[tuple[str, ...]] = ("reference",)

    def has_evidence(self, question: Question) -> bool:
        """Return whether the question has a reference solution."""
        return bool(question.reference)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the question's reference solution, or None if the dataset has none."""
        reference = rollout.question.reference
        return {"reference": reference} if reference else None
