"""The interface of a task: questions in three disjoint splits, and a verifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from lightning_sd.types import Critique, Question, Verdict

Split = Literal["train", "val", "test"]


class Task(ABC):
    """Questions and a verifier of their answers.

    Subclass it to train on a new kind of question, and implement :meth:`questions` and
    :meth:`verify`.

    Example:
        >>> from lightning_sd.types import Question, Verdict
        >>> class EchoTask(Task):
        ...     def questions(self, split):
        ...         text = f"Say {split}."
        ...         message = {"role": "user", "content": text}
        ...         return [Question(id=split, text=text, messages=(message,), answer=split)]
        ...
        ...     def verify(self, question, completion):
        ...         correct = completion.strip() == question.answer
        ...         return Verdict(reward=float(correct), correct=correct, answer=completion)
        >>> task = EchoTask()
        >>> task.verify(task.questions("val")[0], "val").reward
        1.0
    """

    @abstractmethod
    def questions(self, split: Split) -> Sequence[Question]:
        """Return the questions of one split, the same on every call and every rank.

        Args:
            split: ``train``, ``val`` or ``test``. A question must not occur in two splits.

        Returns:
            A sequence. It may build its items when they are read.
        """

    @abstractmethod
    def verify(self, question: Question, completion: str) -> Verdict:
        """Judge one completion. No completion text may make it raise.

        Args:
            question: The question that the completion answers.
            completion: The decoded completion, without special tokens.

        Returns:
            The verdict.
        """

    def verify_batch(
        self, questions: Sequence[Question], completions: Sequence[str]
    ) -> list[Verdict]:
        """Judge the completions of a batch. Override it to judge several at once.

        Args:
            questions: The question of each completion.
            completions: Decoded completions, without special tokens.

        Returns:
            One verdict per completion, in order.
        """
        return [self.verify(q, text) for q, text in zip(questions, completions, strict=True)]


@runtime_checkable
class RepairTask(Protocol):
    """A task that can repair attempts by exact rules, as ``RuleCritic`` requires."""

    def repair(self, question: Question, attempt: str) -> Critique:
        """Repair an attempt in its own words.

        Args:
            question: The question.
            attempt: A step-tagged solution.

        Returns:
            A critique that copies the right steps and changes the wrong ones.
        """
        ...
