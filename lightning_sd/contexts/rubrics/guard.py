"""Rollouts that cite what only the teacher was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_sd.types import Rollout

CITATIONS = ("reference answer", "rubrics", "criterion", "criteria", "guidelines")
"""Phrases that speak of a rubric or a reference answer, beside those of the probe."""


def citations() -> tuple[str, ...]:
    """The guard's phrases: the probe's and ours."""
    # Not at the top: the probe imports the contexts, and they import this.
    from lightning_sd.text.leaks import LEAK_PHRASES

    # Good answers to open questions give examples.
    return (*(phrase for phrase in LEAK_PHRASES if phrase != "example"), *CITATIONS)


@dataclass(frozen=True)
class LeakGuard:
    """Counts the rollouts that cite the rubric or the reference, and may mask them.

    Example:
        >>> from lightning_sd.types import Question
        >>> question = Question("1", "Why?", ({"role": "user", "content": "Why?"},))
        >>> rollout = Rollout(question, (1,), "As the rubric asks: gravity.", 0)
        >>> LeakGuard().cited(rollout)
        ('rubric',)
    """

    phrases: Sequence[str] | None = None
    """Whole words, in any case and white space; what the student's own prompt says is no leak.
    None: :func:`citations`."""
    mask: bool = False
    """Leave rollouts that cite out of the loss; they are counted either way."""

    def __post_init__(self) -> None:
        if self.phrases is None:
            return
        object.__setattr__(self, "phrases", tuple(self.phrases))  # YAML gives lists
        if not self.phrases or not all(phrase.strip() for phrase in self.phrases):
            raise ValueError(f"phrases={self.phrases!r}: give one or more, none of them empty.")

    def cited(self, rollout: Rollout) -> tuple[str, ...]:
        """The phrases that a rollout holds."""
        from lightning_sd.text.leaks import find_leaked_phrases

        own = " ".join(str(message["content"]) for message in rollout.question.messages)
        phrases = citations() if self.phrases is None else self.phrases
        return find_leaked_phrases(rollout.text, phrases, own)

    def drops(self, rollout: Rollout) -> bool:
        """Whether it is masked."""
        return self.mask and bool(self.cited(rollout))
