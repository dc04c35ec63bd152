"""What a critic is: (question, reference, attempt) in, step-aligned critique out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_sd.tasks.base import Task
from lightning_sd.types import Critique, Question, Verdict


@dataclass(frozen=True)
class CritiqueRequest:
    """One attempt to be criticised."""

    question: Question
    attempt: str
    verdict: Verdict
    """The verifier's word on the attempt: decides between the cases A-D."""
    finished: bool = True
    """False: the attempt was cut off at the length limit (case C)."""


class Critic(ABC):
    """A frozen critic. Its answers are cached, so the same request must give the same critique."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides a critique beside the request, as plain JSON values.

        Model and weights, quantisation, dtype, prompt, decoding settings, rule version. The cache
        key is a hash over it: what is missing here lets one critic's words be served as another's.
        """

    @abstractmethod
    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write one critique a request, in order. A refused one says why; none is left out."""

    def setup(self, task: Task) -> None:  # noqa: B027 - most critics need nothing of the task
        """Called once with the data module's task, before the first :meth:`critique`."""
