"""Contexts for the real model, whose teacher must be shown how a context is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from benchmarks.feedback_alignment.sums import reference, solution
from lightning_sd.contexts import ReferenceSolution, StepAlignedCritique, TeacherContext
from lightning_sd.contexts.base import fill
from lightning_sd.types import Message, Rollout


class ShownByExamples(TeacherContext):
    """The student's solved examples stand in the teacher's earlier turns with the context as well.

    SmolLM2-135M was never taught to read a critique or a reference. With examples that show none, a
    text between the question and the answer spoils the answer instead of helping it.
    """

    @abstractmethod
    def example(self, shot: str) -> Mapping[str, str]:
        """The template's fields for one of the solved examples."""

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """System turn, examples with context and solution, the question with its own context."""
        *earlier, asked = super().messages(rollout, fields)
        return (*map(self._shown, earlier), asked)

    def _shown(self, turn: Message) -> Message:
        """An example's question with its context; any other turn as it is."""
        if turn["role"] != "user":
            return turn
        shot = turn["content"]
        told = fill(self.template, {"question": shot, **self.example(shot)})
        return {"role": "user", "content": told}


class ShownReference(ShownByExamples, ReferenceSolution):
    """Reference solutions, in a notation that the answers do not have."""

    def example(self, shot: str) -> Mapping[str, str]:
        """The example's reference."""
        return {"reference": reference(shot)}


class ShownCritique(ShownByExamples, StepAlignedCritique):
    """Step-aligned critiques of attempts that kept the form."""

    def example(self, shot: str) -> Mapping[str, str]:
        """The repair of such an attempt, which is the solution wherever it was wrong."""
        return {"critique": solution(shot)}
