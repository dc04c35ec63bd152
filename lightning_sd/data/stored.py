"""Critiques that need no critic: those that stand with the data, and attempts that are right."""

from __future__ import annotations

from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.check import checked
from lightning_sd.tasks.base import Task
from lightning_sd.types import Critique, Question


def stored_request(task: Task, question: Question) -> CritiqueRequest:
    """What a critic is asked about the attempt that stands with a question.

    ``extra["finished"]`` says whether the attempt came to its end; without it, it did.
    """
    attempt = question.attempt or ""
    finished = bool(question.extra.get("finished", True))
    return CritiqueRequest(question, attempt, task.verify(question, attempt), finished)


def stored_critique(request: CritiqueRequest) -> Critique | None:
    """The critique that stands with the question (``extra["critique"]``), checked as any other.

    Returns:
        None: there is none, or the request is about another attempt than the stored one.
    """
    text = request.question.extra.get("critique")
    if text is None or request.attempt != request.question.attempt:
        return None
    return checked(str(text), request)


def self_critique(request: CritiqueRequest) -> Critique | None:
    """The attempt itself, if it is right and in good form: what a scribe would copy (case A)."""
    if not request.verdict.correct:
        return None
    critique = checked(request.attempt, request, complete=request.finished)
    return critique if critique.refused is None else None
