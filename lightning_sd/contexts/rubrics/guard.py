"""Find rollouts that cite what only the teacher was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_sd.text.leaks import LEAK_PHRASES, find_leaked_phrases
from lightning_sd.types import Rollout

CITATIONS = (
    # Good answers to open questions give examples.
    *(phrase for phrase in LEAK_PHRASES if phrase != "example"),
    *("reference answer", "rubrics", "criterion", "criteria", "guidelines"),
)
"""Phrases that refer to a rubric, a reference answer or another part of the teacher's prompt."""


@dataclass(frozen=True)
class LeakGuard:
    """Counts the rollouts that cite the rubric or the reference, and may mask them.

    Example:
        >>> from lightning_sd.types import Question
        >>> question = Question("1", "Why?", ({"role": "user", "content": "Why?"},))
        >>> rollout = Rollout(question, (1,), "As the rubric asks: gravity.", 0)
        >>> LeakGuard().find_citations(rollout)
        ('rubric',)

    Raises:
        ValueError: No phrase, or an empty one.
    """

    phrases: Sequence[str] = CITATIONS
    """Phrases of whole words, in any case and with any white space. A phrase in the student's own
    prompt is not a leak."""
    mask: bool = False
    """Remove rollouts that cite from the loss. They are counted in either case."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "phrases", tuple(self.phrases))  # YAML gives lists
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise ValueError(f"phrases={self.phrases!r}: give at least one, and no empty ones.")

    def find_citations(self, rollout: Rollout) -> tuple[str, ...]:
        """Return the phrases that occur in a rollout and not in its prompt."""
        own = " ".join(str(message["content"]) for message in rollout.question.messages)
        return find_leaked_phrases(rollout.text, self.phrases, own)

    def masks_rollout(self, rollout: Rollout) -> bool:
        """Tell whether a rollout is removed from the loss."""
        return self.mask and bool(self.find_citations(rollout))
