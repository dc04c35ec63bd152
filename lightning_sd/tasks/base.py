"""What a task is: questions in three disjoint splits, and a verifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from lightning_sd.types import Critique, Question, Verdict

Split = Literal["train", "val", "test"]


class Task(ABC):
    """Questions and a way to judge answers.

    Subclass it to train on something new: give :meth:`questions` and :meth:`verify`.
    """

    @abstractmethod
    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of one split, the same on every call and every rank.

        Args:
            split: ``train``, ``val`` or ``test``; no question may stand in two of them.

        Returns:
            A map-style sequence; it may build its items as they are read.
        """

    @abstractmethod
    def verify(self, question: Question, completion: str) -> Verdict:
        """Judge one completion. Never raises over what the completion holds.

        Args:
            question: The question it answers.
            completion: The decoded completion, without special tokens.

        Returns:
            The verdict.
        """


@runtime_checkable
class StepChecked(Protocol):
    """A task whose steps can be checked exactly, which ``RuleCritic`` needs."""

    def repair(self, question: Question, attempt: str) -> Critique:
        """Repair an attempt in its own words: copy what is right, change what is wrong."""
        ...
