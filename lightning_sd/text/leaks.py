"""Signs in an answer that its writer saw something the student will not see."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAKS = (
    "reference solution",
    "checked solution",
    "given solution",
    "provided solution",
    "critique",
    "the feedback",
    "the hint",
    "rubric",
    "example",
    "as shown above",
    "as stated above",
)
"""Phrases that speak of a context; questions of another kind want others."""

COPY_TOKENS = 8
"""Length of the runs of tokens that count as copied: about a step of the lab task, or six words."""


def leaked_phrases(text: str, phrases: Sequence[str], own_prompt: str = "") -> tuple[str, ...]:
    r"""Which phrases an answer holds, as whole words, in any case and white space.

    Args:
        text: The answer.
        phrases: What to look for.
        own_prompt: What the student itself is shown: a phrase that stands there tells nothing.

    Returns:
        The phrases found, in the order of ``phrases``.

    Example:
        >>> leaked_phrases("As the Critique\n says, 4.", ["critique", "rubric"])
        ('critique',)
        >>> leaked_phrases("A counterexample is 4.", ["example"])
        ()
        >>> leaked_phrases("An example is 4.", ["example"], own_prompt="Give an example.")
        ()
    """
    return tuple(p for p in phrases if _holds(text, p) and not _holds(own_prompt, p))


def copied_runs(
    answer: Sequence[int], shown: Sequence[int], own: Sequence[int], length: int = COPY_TOKENS
) -> tuple[int, int]:
    """Count the runs of tokens that an answer shares with what only the teacher was shown.

    Args:
        answer: Token ids of the answer.
        shown: Of the teacher's prompt.
        own: Of the student's prompt: what stands there too is not copied from the context.
        length: Tokens a run.

    Returns:
        (runs that stand in ``shown`` and not in ``own``, all runs of the answer); an answer shorter
        than ``length`` has none.

    Example:
        >>> copied_runs([1, 2, 3, 4], shown=[9, 2, 3, 4], own=[9], length=2)
        (2, 3)
    """
    runs = _runs(answer, length)
    context = set(_runs(shown, length)) - set(_runs(own, length))
    return sum(run in context for run in runs), len(runs)


def _holds(text: str, phrase: str) -> bool:
    words = r"\s+".join(map(re.escape, phrase.split()))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def _runs(ids: Sequence[int], length: int) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + length]) for i in range(len(ids) - length + 1)]
