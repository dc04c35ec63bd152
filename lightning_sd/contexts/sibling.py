"""A correct sibling as demonstration, and the environment's feedback, as context (SDPO)."""

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
    """Show the teacher a correct sibling's solution and the environment's feedback (SDPO).

    The solution is the first correct sibling, without its thinking. The feedback is
    ``Verdict.feedback`` of the rollout itself if it is wrong. A rollout has no teacher if it has
    neither. In particular, the only correct rollout of a group teaches its siblings and has no
    teacher itself, unless ``own_success`` is set.

    Args:
        feedback: When to show the feedback. ``fallback``: only if no sibling is correct (SDPO's
            code). ``always``: with a solution too. ``never``: show solutions alone.
        own_success: If no sibling is correct, show a correct rollout its own text.
        own_attempt: Show a wrong rollout to the teacher that scores it. Default: off, as in the
            paper, because the teacher then repeats the attempt (SDPO, table 6: accuracy on
            LiveCodeBench falls from 48.3 to 44.5, and diversity falls too).
        template: Wording of the last user turn, with ``{question}`` and the pieces ``{solution}``,
            ``{attempt}`` and ``{feedback}``, each of which is empty if there is nothing to show.
        solution_template: Wording of the solution's piece, around ``{solution}``.
        feedback_template: Wording of the feedback's piece, around ``{feedback}``.
        attempt_template: Wording of the attempt's piece, around ``{attempt}``.
        max_prompt_tokens: Maximum length of the teacher's prompt, in tokens. The ends of the
            attempt, the feedback and the solution are cut to fit, in this order. Default: no limit.
        template_kwargs: Arguments of the chat template for the teacher's prompt only.

    Raises:
        ValueError: An unknown ``feedback``, the wording of a piece without its field, or as
            :class:`TeacherContext`.

    Example:
        >>> from lightning_sd.types import Question, Verdict, link_siblings
        >>> question = Question("1", "7 + 5?", ({"role": "user", "content": "7 + 5?"},))
        >>> wrong = Rollout(question, (1,), "11", group=0, verdict=Verdict(0.0, False))
        >>> right = Rollout(question, (2,), "12", group=0, verdict=Verdict(1.0, True))
        >>> view, none = SiblingDemonstration().views(link_siblings([wrong, right]))
        >>> print(view.messages[-1]["content"])
        7 + 5?
        <BLANKLINE>
        Correct solution:
        12
        <BLANKLINE>
        Correctly solve the original question.
    """

    reads_verdicts: ClassVar[bool] = True
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
                raise ValueError(f"{name}_template={wording!r} lacks {{{name}}}; add it.")

    def fields(self, rollout: Rollout) -> Mapping[str, str] | None:
        """Return solution, feedback and attempt, each empty if there is nothing to show.

        Returns:
            None if there is neither a solution nor feedback.
        """
        solution = self._find_solution(rollout)
        feedback = self._choose_feedback(rollout, has_solution=bool(solution))
        if not solution and not feedback:
            return None
        show_attempt = self.own_attempt and not _is_correct(rollout)
        attempt = extract_response(rollout.text) if show_attempt else ""
        return {"solution": solution, "feedback": feedback, "attempt": attempt}

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Return the student's prompt; its last turn holds the pieces that are not empty."""
        pieces = {
            name: fill(wording, {name: fields[name]}) if fields[name] else ""
            for name, wording in self.pieces.items()
        }
        return super().messages(rollout, pieces)

    def _find_solution(self, rollout: Rollout) -> str:
        own = (rollout,) if self.own_success else ()
        texts = (extract_response(r.text) for r in (*rollout.siblings, *own) if _is_correct(r))
        return next((text for text in texts if text), "")

    def _choose_feedback(self, rollout: Rollout, *, has_solution: bool) -> str:
        verdict = rollout.verdict
        if self.feedback == "never" or (self.feedback == "fallback" and has_solution):
            return ""
        # The wording says that the attempt failed.
        return (verdict.feedback or "").strip() if verdict and not verdict.correct else ""


def _is_correct(rollout: Rollout) -> bool:
    return rollout.verdict is not None and rollout.verdict.correct
