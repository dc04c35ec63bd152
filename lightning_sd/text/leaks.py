"""Find signs that the writer of an answer saw text that the student will not see."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEAK_PHRASES = (
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
"""Phrases that refer to a context; other kinds of questions need other phrases."""

COPY_TOKENS = 8
"""Length, in tokens, of a run that counts as copied: about one step, or six words."""


def find_leaked_phrases(text: str, phrases: Sequence[str], own_prompt: str = "") -> tuple[str, ...]:
    r"""Find the phrases that an answer holds as whole words, in any case and white space.

    Args:
        text: The answer.
        phrases: The phrases to search for.
        own_prompt: The student's prompt; phrases that it holds are not counted.

    Returns:
        The phrases found, in the order of ``phrases``.

    Example:
        >>> find_leaked_phrases("As the Critique\n says, 4.", ["critique", "rubric"])
        ('critique',)
        >>> find_leaked_phrases("A counterexample is 4.", ["example"])
        ()
        >>> find_leaked_phrases("An example is 4.", ["example"], own_prompt="Give an example.")
        ()
    """
    return tuple(p for p in phrases if _contains(text, p) and not _contains(own_prompt, p))


def count_copied_runs(
    answer: Sequence[int], shown: Sequence[int], own: Sequence[int], length: int = COPY_TOKENS
) -> tuple[int, int]:
    """Count the token runs of an answer that appear in the teacher's prompt only.

    Args:
        answer: Token ids of the answer.
        shown: Token ids of the teacher's prompt.
        own: Token ids of the student's prompt; runs that it also holds are not counted.
        length: Tokens per run.

    Returns:
        The number of runs in ``shown`` but not in ``own``, and the number of all runs of the
        answer (0 if it is shorter than ``length``).

    Example:
        >>> count_copied_runs([1, 2, 3, 4], shown=[9, 2, 3, 4], own=[9], length=2)
        (2, 3)
    """
    runs = _list_runs(answer, length)
    context = set(_list_runs(shown, length)) - set(_list_runs(own, length))
    return sum(run in context for run in runs), len(runs)


def _contains(text: str, phrase: str) -> bool:
    words = r"\s+".join(map(re.escape, phrase.split()))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


def _list_runs(ids: Sequence[int], length: int) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + length]) for i in range(len(ids) - length + 1)]
