"""Checking what a critic wrote before a teacher may see it."""

from __future__ import annotations

from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.text.steps import StepTrace, compare, parse_steps
from lightning_sd.text.thinking import _THINK_TAG
from lightning_sd.types import Critique

CHECK_VERSION = 1
"""Part of every critic's identity that uses these checks: stricter ones ask anew."""


def checked(
    text: str,
    request: CritiqueRequest,
    *,
    tokens: int = 0,
    seconds: float = 0.0,
    complete: bool = True,
) -> Critique:
    """Make a critique of what a critic wrote, refused if it must not be used.

    Args:
        text: Without the critic's thinking.
        request: What was asked.
        tokens: That the critic wrote.
        seconds: That it took.
        complete: False: it was cut off at its length limit.

    Returns:
        The critique with its case and step map. A refused one keeps its text.
    """
    attempt, repaired = parse_steps(request.attempt), parse_steps(text)
    copied, changed, added = compare(attempt, repaired)
    return Critique(
        text=text,
        case=case_of(request, attempt, repaired),
        copied=copied,
        changed=changed,
        added=added,
        refused=refusal(text, repaired, complete=complete),
        tokens=tokens,
        seconds=seconds,
    )


def refusal(text: str, repaired: StepTrace, *, complete: bool) -> str | None:
    """Why a critique must not be used; None: it may be."""
    if _THINK_TAG.search(text):
        return "it holds think tags"
    if not complete:
        return "it was cut off at the critic's length limit"
    if not text.strip():
        return "it is empty"
    if repaired.answer is None:
        return "it has no answer"
    if not repaired.well_formed:
        return "it breaks the step form"
    return None


def case_of(request: CritiqueRequest, attempt: StepTrace, repaired: StepTrace) -> str:
    """Which of the cases A-D an attempt is.

    A: right as it stands. B: right, and the critic put a step in. C: cut off, or without an answer.
    D: wrong.
    """
    if request.verdict.correct:
        return "B" if len(repaired.steps) > len(attempt.steps) else "A"
    return "C" if not request.finished or attempt.answer is None else "D"


def copied_prefix(attempt: str, critique: str) -> float:
    """How faithful a scribe is: the share of an attempt that stands unchanged at the start.

    Args:
        attempt: A step-tagged solution.
        critique: The critic's version.

    Returns:
        Characters in the leading steps that are the same in both, divided by the characters in all
        steps of the attempt; 0 if it has none. For an attempt that is right it should be 1, for a
        wrong one the share of it before its first wrong step.

    Example:
        >>> attempt = "<step_1>1+1=2</step_1><step_2>2+1=4</step_2><answer>4</answer>"
        >>> critique = "<step_1>1+1=2</step_1><step_2>2+1=3</step_2><answer>3</answer>"
        >>> copied_prefix(attempt, critique)
        0.5
    """
    old, new = parse_steps(attempt).steps, parse_steps(critique).steps
    same = 0
    for mine, theirs in zip(old, new, strict=False):
        if mine != theirs:
            break
        same += len(mine)
    total = sum(map(len, old))
    return same / total if total else 0.0
