"""Store the correct solutions of each question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SolutionBuffer:
    """The newest correct solutions of each question.

    Args:
        per_question: Number of solutions stored per question; 0 stores nothing.
        questions: Maximum number of questions. Beyond it, the question to which no solution was
            added for the longest time is removed.

    Raises:
        ValueError: ``per_question`` below 0 or ``questions`` below 1.

    Example:
        >>> buffer = SolutionBuffer(per_question=1)
        >>> buffer.add("q", "first")
        >>> buffer.add("q", "second")
        >>> buffer.get_newest("q")
        'second'
    """

    def __init__(self, per_question: int = 1, questions: int = 10_000) -> None:
        if per_question < 0 or questions < 1:
            raise ValueError(
                f"per_question={per_question}, questions={questions}: must be at least 0 and at "
                "least 1."
            )
        self.per_question, self.questions = per_question, questions
        self._solutions: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return len(self._solutions)

    def add(self, question: str, solution: str) -> None:
        """Store a solution.

        Args:
            question: Id of the question.
            solution: A correct text; if it is stored already, it becomes the newest.
        """
        if not self.per_question or not solution:
            return
        kept = [text for text in self._solutions.pop(question, []) if text != solution]
        self._solutions[question] = [*kept, solution][-self.per_question :]
        if len(self._solutions) > self.questions:
            del self._solutions[next(iter(self._solutions))]

    def get_newest(self, question: str, *, other_than: str | None = None) -> str | None:
        """Return the newest solution of a question, or None if there is none.

        Args:
            question: Id of the question.
            other_than: A text to skip.
        """
        kept = self._solutions.get(question, [])
        return next((text for text in reversed(kept) if text != other_than), None)

    def state_dict(self) -> dict[str, Any]:
        """Return the solutions as plain data, in order."""
        return {"solutions": [[key, list(texts)] for key, texts in self._solutions.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self._solutions = {key: list(texts) for key, texts in state["solutions"]}
