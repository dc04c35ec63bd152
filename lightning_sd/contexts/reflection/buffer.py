"""Solutions that succeeded, question by question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SolutionBuffer:
    """The newest successful solutions of each question.

    Args:
        per_question: Kept of one question; 0 keeps nothing.
        questions: For how many questions; beyond it, the one that succeeded the longest ago goes.

    Raises:
        ValueError: A negative number, or no question.

    Example:
        >>> buffer = SolutionBuffer(per_question=1)
        >>> buffer.add("q", "first")
        >>> buffer.add("q", "second")
        >>> buffer.newest("q")
        'second'
    """

    def __init__(self, per_question: int = 1, questions: int = 10_000) -> None:
        if per_question < 0 or questions < 1:
            raise ValueError(
                f"per_question={per_question}, questions={questions}: must be 0 or more, and at "
                "least 1."
            )
        self.per_question, self.questions = per_question, questions
        self._solutions: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._solutions)

    def add(self, question: str, solution: str) -> None:
        """Remember a solution.

        Args:
            question: Its id.
            solution: A text that succeeded; one that is there already becomes the newest.
        """
        if not self.per_question or not solution:
            return
        kept = [text for text in self._solutions.pop(question, []) if text != solution]
        self._solutions[question] = [*kept, solution][-self.per_question :]
        if len(self._solutions) > self.questions:
            del self._solutions[next(iter(self._solutions))]

    def newest(self, question: str, *, other_than: str | None = None) -> str | None:
        """The newest solution of a question; None: there is none.

        Args:
            question: Its id.
            other_than: A text that does not count.
        """
        kept = self._solutions.get(question, [])
        return next((text for text in reversed(kept) if text != other_than), None)

    def state_dict(self) -> dict[str, Any]:
        """Plain data; the order is part of it."""
        return {"solutions": [[key, list(texts)] for key, texts in self._solutions.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._solutions = {key: list(texts) for key, texts in state["solutions"]}
