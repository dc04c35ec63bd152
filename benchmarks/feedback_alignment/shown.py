"""Contexts for SmolLM2, whose teacher needs examples of how to use a context."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from benchmarks.feedback_alignment.sums import reference, solution
from lightning_sd.contexts import ReferenceSolution, StepAlignedCritique, TeacherContext
from lightning_sd.contexts.base import fill
from lightning_sd.types import Message, Rollout


class ShownByExamples(TeacherContext):
    """Add a context to each solved example in the teacher's earlier turns.

    SmolLM2-135M was never trained to read a critique or a reference. With examples that show none,
    a text between the question and the answer makes the answer worse.
    """

    @abstractmethod
    def example(self, shot: str) -> Mapping[str, str]:
        """Return the template's fields for one of the solved examples."""

    def messages(self, rollout: Rollout, fields: Mapping[str, str]) -> tuple[Message, ...]:
        """Build the system turn, the examples with contexts, and the question with its own."""
        *earlier, asked = super().messages(rollout, fields)
        return (*map(self._add_context, earlier), asked)

    def _add_context(self, turn: Message) -> Message:
        """Add the context to an example's question; return any other turn unchanged."""
        if turn["role"] != "user":
            return turn
        shot = turn["content"]
        told = fill(self.template, {"question": shot, **self.example(shot)})
        return {"role": "user", "content": told}


class ShownReference(ShownByExamples, ReferenceSolution):
    """Reference solutions, in a notation that the answers do not use."""

    def example(self, shot: str) -> Mapping[str, str]:
        """Return the example's reference."""
        return {"reference": reference(shot)}


class ShownCritique(ShownByExamples, StepAlignedCritique):
    """Step-aligned critiques of attempts that kept the form."""

    def example(self, shot: str) -> Mapping[str, str]:
        """Return the repair of such an attempt, which equals the solution."""
        return {"critique": solution(shot)}
