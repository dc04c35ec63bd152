"""A successful sibling as demonstration, and the environment's feedback (SDPO)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from lightning_sd.contexts.base import TeacherContext, fill
from lightning_sd.contexts.templates import (
    SIBLING,
    SIBLING_ATTEMPT,
    SIBLING_FEEDBACK,
    SIBLING_SOLUTION,
)
from lightning_sd.text.thinking import extract_response
from lightning_sd.types import Message, Rollout

Feedback = Literal["fallback", "always", "never"]


class SiblingDemonstration(TeacherContext):
    """The teacher sees a solution that another rollout of the group found (SDPO).

    The solution is the first successful sibling, without its thinking. The environment's feedback
    (``Verdict.feedback`` of the rollout itself, if it failed) stands in where no sibling succeeded.
    A rollout with neither has no teacher: so a lone success teaches its siblings and not itself.

    Args:
        feedback: ``fallback``: only where no sibling succeeded (the paper's code). ``always``:
            beside the solution too. ``never``: solutions alone.
        own_success: Where no sibling succeeded, a rollout that did is its own demonstration.
        own_attempt: Show a failed rollout to the teacher that scores it. Off, as in the paper: the
            teacher then repeats the attempt, and accuracy and diversity fell (table 6: 48.3 to
            44.5 on LiveCodeBench).
        template: Must hold ``{question}``; the pieces ``{solution}``, ``{attempt}`` and
            ``{feedback}`` are empty where there is none.
        solution_template: Wording of that piece, around ``{solution}``.
        feedback_template: Likewise, around ``{feedback}``.
        attempt_template: Likewise, around ``{attempt}``.
        max_prompt_tokens: See :class:`TeacherContext`; the attempt is cut first, then the feedback.
        template_kwargs: See there.

    Raises:
        ValueError: An unknown kind of feedback, or a wording without its field.
    """

    template = SIBLING
    cut_fields: ClassVar[tuple[str, ...]] = ("attempt", "feedback", "solution")

    def __init__(
        self,
        feedback: Feedback = "fallback",
        own_success: bool = False,
        own_attempt: bool = False,
        template: str | None = None,
        solution_template: str = SIBLING_SOLUTION,
        feedback_template: str = SIBLING_FEEDBACK,
        attempt_template: str = SIBLING_ATTEMPT,
        max_prompt_tokens: int | None = None,
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(template, max_prompt_tokens, template_kwargs)
        if feedback not in get_args(Feedback):
            raise ValueError(f"feedback={feedback!r}: choose one of {get_args(Feedback)}.")
        self.feedback = feedback
        self.own_success, self.own_attempt = own_success, own_attempt
        self.pieces = {
            "solution": solution_template,
            "feedback": feedback_template,
            "attempt": attempt_template,
        }
        for name, wording in self.pieces.items():
            if f"{{{name}}}" not in wording:
                raise ValueError(f"{name}_template={wording!r} lacks {{{name}}}.")

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """The solution, the feedback and the attempt, empty where there is none of a kind."""
        solution = self._solution(rollout)
        feedback = self._feedback(rollout, found=bool(solution))
        if not solution and not feedback:
            return None
        shown = self.own_attempt and not _succeeded(rollout)
        attempt = extract_response(rollout.text) if shown else ""
        return {"solution": solution, "feedback": feedback, "attempt": attempt}

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """The student's prompt, its last turn with the pieces that there are."""
        pieces = {
            name: fill(wording, {name: fields[name]}) if fields[name] else ""
            for name, wording in self.pieces.items()
        }
        return super().messages(rollout, pieces)

    def _solution(self, rollout: Rollout) -> str:
        own = (rollout,) if self.own_success else ()
        texts = (extract_response(r.text) for r in (*rollout.siblings, *own) if _succeeded(r))
        return next((text for text in texts if text), "")

    def _feedback(self, rollout: Rollout, *, found: bool) -> str:
        verdict = rollout.verdict
        if self.feedback == "never" or (self.feedback == "fallback" and found):
            return ""
        # The wording speaks of an attempt that failed.
        return (verdict.feedback or "").strip() if verdict and not verdict.correct else ""


def _succeeded(rollout: Rollout) -> bool:
    return rollout.verdict is not None and rollout.verdict.correct
