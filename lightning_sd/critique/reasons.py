"""The reasons why a rollout has no usable critique, and their short names for logs."""

from __future__ import annotations

from lightning_sd.critique.base import is_failure
from lightning_sd.types import Critique

THINK_TAGS = "it holds think tags"
CUT_OFF = "it was cut off at the critic's length limit"
EMPTY = "it is empty"
NO_ANSWER = "it has no answer"
BROKEN_FORM = "it breaks the step form"
TOO_LONG = "it is too long"
PROMPT_TOO_LONG = "its prompt is too long for the critic"
NOT_ASKED = "the critic was not asked in this batch"

_NAMES = {
    THINK_TAGS: "critique_refused:think_tags",
    CUT_OFF: "critique_refused:cut_off",
    EMPTY: "critique_refused:empty",
    NO_ANSWER: "critique_refused:no_answer",
    BROKEN_FORM: "critique_refused:broken_form",
    TOO_LONG: "critique_refused:too_long",
    PROMPT_TOO_LONG: "critique_refused:prompt_too_long",
    NOT_ASKED: "critic_not_asked",
}
_FAILED = "critic_failed"
_OTHER = "critique_refused:other"

REASON_NAMES = (_FAILED, *_NAMES.values(), _OTHER)
"""All names that :func:`name_reason` returns."""


def name_reason(critique: Critique) -> str | None:
    """Return the short name of the reason why a critique must not be used.

    The set of names is fixed, so that all processes and all steps log the same columns. Reasons of
    critics from outside this package are named ``critique_refused:other``.

    Args:
        critique: A critique, as :meth:`CritiqueService.ask` returns it.

    Returns:
        One of ``REASON_NAMES``; None if the critique may be used.

    Example:
        >>> name_reason(Critique("", "D", refused="it is empty"))
        'critique_refused:empty'
        >>> name_reason(Critique("", "", refused="failed: connection: refused"))
        'critic_failed'
    """
    if critique.refused is None:
        return None
    return _FAILED if is_failure(critique) else _NAMES.get(critique.refused, _OTHER)
