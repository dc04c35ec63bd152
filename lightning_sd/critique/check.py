"""Check a critic's text before a teacher may see it."""

from __future__ import annotations

from dataclasses import replace

from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.reasons import (
    BROKEN_FORM,
    CUT_OFF,
    EMPTY,
    NO_ANSWER,
    THINK_TAGS,
    TOO_LONG,
)
from lightning_sd.text.cleaning import clean_text
from lightning_sd.text.steps import StepTrace, compare_steps, parse_steps
from lightning_sd.text.thinking import THINK_TAG
from lightning_sd.types import Critique

CHECK_VERSION = 1
"""Part of the identity of every critic that uses these checks. Raise it when the checks become
stricter: cached critiques are then no longer used."""


MAX_CRITIQUE_CHARS = 100_000
"""Longer critiques are cut and refused, before any of their text is parsed or tokenized."""


def check_critique(
    text: str,
    request: CritiqueRequest,
    *,
    tokens: int = 0,
    seconds: float = 0.0,
    complete: bool = True,
) -> Critique:
    """Turn a critic's text into a :class:`Critique`, refused if it must not be used.

    Args:
        text: The critic's text without its thinking.
        request: The request that the text answers.
        tokens: Number of tokens that the critic generated.
        seconds: Time that the critic took.
        complete: False if the text was cut off at the critic's length limit.

    Returns:
        The critique with its case and the numbers of copied, changed and added steps. A refused
        critique keeps its text.
    """
    if len(text) > MAX_CRITIQUE_CHARS:
        return cut_critique(Critique(text, "", tokens=tokens, seconds=seconds))
    attempt, repaired = parse_steps(request.attempt), parse_steps(text)
    copied, changed, added = compare_steps(attempt, repaired)
    return Critique(
        text=text,
        case=classify_case(request, attempt, repaired),
        copied=copied,
        changed=changed,
        added=added,
        refused=find_refusal(text, repaired, complete=complete),
        tokens=tokens,
        seconds=seconds,
    )


def cut_critique(critique: Critique) -> Critique:
    """Cut a critique of more than ``MAX_CRITIQUE_CHARS`` characters, and refuse it.

    Shorter critiques are returned unchanged.
    """
    if len(critique.text) <= MAX_CRITIQUE_CHARS:
        return critique
    text = critique.text[:MAX_CRITIQUE_CHARS]
    return replace(critique, text=text, refused=TOO_LONG)


def sanitize_critique(critique: Critique) -> Critique:
    """Cut and clean a critic's texts; see :func:`cut_critique` and :func:`clean_text`."""
    critique = cut_critique(critique)
    refused = None if critique.refused is None else clean_text(critique.refused)
    return replace(critique, text=clean_text(critique.text), refused=refused)


def find_refusal(text: str, repaired: StepTrace, *, complete: bool) -> str | None:
    """Return the reason why a critique must not be used, or None if it may be used."""
    if THINK_TAG.search(text):
        return THINK_TAGS
    if not complete:
        return CUT_OFF
    if not text.strip():
        return EMPTY
    if repaired.answer is None:
        return NO_ANSWER
    if not repaired.well_formed:
        return BROKEN_FORM
    return None


def classify_case(request: CritiqueRequest, attempt: StepTrace, repaired: StepTrace) -> str:
    """Return the case of an attempt: A, B, C or D (arXiv 2606.11173).

    A: the attempt is correct. B: it is correct, and the critic inserted a missing step.
    C: it is cut off or has no answer. D: it is wrong.
    """
    if request.verdict.correct:
        return "B" if len(repaired.steps) > len(attempt.steps) else "A"
    return "C" if not request.finished or attempt.answer is None else "D"


def measure_copied_prefix(attempt: str, critique: str) -> float:
    """Measure how much of an attempt its critique copies before the first difference.

    Args:
        attempt: A step-tagged solution.
        critique: The critic's version of it.

    Returns:
        Characters in the leading steps that are equal in both texts, divided by the characters in
        all steps of the attempt; 0 if the attempt has no steps. For a correct attempt the value
        should be 1, for a wrong one the share of the text before the first wrong step.

    Example:
        >>> attempt = "<step_1>1+1=2</step_1><step_2>2+1=4</step_2><answer>4</answer>"
        >>> critique = "<step_1>1+1=2</step_1><step_2>2+1=3</step_2><answer>3</answer>"
        >>> measure_copied_prefix(attempt, critique)
        0.5
    """
    old_steps, new_steps = parse_steps(attempt).steps, parse_steps(critique).steps
    copied = 0
    for old, new in zip(old_steps, new_steps, strict=False):
        if old != new:
            break
        copied += len(old)
    total = sum(map(len, old_steps))
    return copied / total if total else 0.0
