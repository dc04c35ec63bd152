"""An expert's demonstration as context (SDFT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from lightning_sd.contexts.base import TeacherContext
from lightning_sd.contexts.templates import DEMONSTRATION
from lightning_sd.types import Question, Rollout


class Demonstration(TeacherContext):
    """Show the teacher an example answer, and ask it for an answer of its own (SDFT).

    The example is the question's ``extra["demonstration"]``, or its reference solution if there is
    no demonstration. A rollout has no teacher if its question has neither. The method uses no
    verifier, so correct and wrong rollouts are treated alike.

    Args:
        template: Wording of the last user turn, with ``{question}`` and ``{demonstration}``.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. The end of the
            demonstration is cut to fit. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only.

    Raises:
        ValueError: As :class:`TeacherContext`.

    Example:
        >>> from lightning_sd.types import Question, Rollout
        >>> turn = {"role": "user", "content": "7 + 5?"}
        >>> question = Question("1", "7 + 5?", (turn,), reference="7 + 5 = 12")
        >>> view = Demonstration().views([Rollout(question, (1,), "11", group=0)])[0]
        >>> print(view.messages[-1]["content"])
        7 + 5?
        <BLANKLINE>
        This is an example for a response to the question:
        7 + 5 = 12
        <BLANKLINE>
        Now answer with a response of your own, including the thinking process.
    """

    template = DEMONSTRATION
    cut_fields: ClassVar[tuple[str, ...]] = ("demonstration",)

    def has_evidence(self, question: Question) -> bool:
        """Return whether the question has a demonstration."""
        return bool(question.extra.get("demonstration") or question.reference)

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return the demonstration, or None if the dataset has none."""
        question = rollout.question
        demonstration = question.extra.get("demonstration") or question.reference
        return {"demonstration": str(demonstration)} if demonstration else None
