"""Judge rollouts, build requests to the critic, and find critiques that need no critic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.check import check_critique, sanitize_critique
from lightning_sd.tasks.base import Task
from lightning_sd.tasks.judges.extract import mark_thinking
from lightning_sd.tasks.judges.verdicts import judge_batch
from lightning_sd.text.cleaning import clean_text, clean_value
from lightning_sd.types import Critique, Question, Rollout, Verdict


def judge_rollouts(task: Task, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Return rollouts with cleaned texts and with the task's verdicts. Existing ones are kept.

    See :func:`~lightning_sd.text.clean_text`. The texts of the verdicts are cleaned as well.
    """
    rollouts = [replace(rollout, text=clean_text(rollout.text)) for rollout in rollouts]
    new = [rollout for rollout in rollouts if rollout.verdict is None]
    questions = [mark_thinking(r.question) if r.thinking_opened else r.question for r in new]
    verdicts = iter(judge_batch(task, questions, [r.text for r in new]))
    return [_set_verdict(r, next(verdicts) if r.verdict is None else r.verdict) for r in rollouts]


def _set_verdict(rollout: Rollout, verdict: Verdict) -> Rollout:
    texts = clean_value((verdict.answer, verdict.feedback, verdict.reason))
    answer, feedback, reason = texts
    verdict = replace(verdict, answer=answer, feedback=feedback, reason=reason)
    return replace(rollout, verdict=verdict)


def build_rollout_request(rollout: Rollout) -> CritiqueRequest:
    """Return the request for a critique of one rollout.

    Raises:
        ValueError: The rollout has no verdict yet.
    """
    if rollout.verdict is None:
        raise ValueError("rollout: it has no verdict. Judge rollouts before requesting critiques.")
    return CritiqueRequest(rollout.question, rollout.text, rollout.verdict, rollout.finished)


def build_stored_request(task: Task, question: Question) -> CritiqueRequest:
    """Return the request for a critique of the attempt that is stored with a question.

    ``question.extra["finished"]`` tells whether the attempt is complete. Default: True.
    """
    attempt = question.attempt or ""
    finished = bool(question.extra.get("finished", True))
    [verdict] = judge_batch(task, [question], [attempt])
    return CritiqueRequest(question, attempt, verdict, finished)


def read_stored_critique(request: CritiqueRequest) -> Critique | None:
    """Return the critique in ``question.extra["critique"]``, checked like any other critique.

    Returns:
        None if no critique is stored, or if the request is not about the stored attempt.
    """
    text = request.question.extra.get("critique")
    if text is None or request.attempt != request.question.attempt:
        return None
    return sanitize_critique(check_critique(str(text), request))


def reuse_correct_attempt(request: CritiqueRequest) -> Critique | None:
    """Return the attempt as its own critique if it is correct and in step form (case A).

    A faithful critic would copy such an attempt. Returns None for all other attempts.
    """
    if not request.verdict.correct:
        return None
    critique = check_critique(request.attempt, request, complete=request.finished)
    return critique if critique.refused is None else None
