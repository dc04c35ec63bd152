"""Loaders that resume in the middle of an epoch from a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning_sd.text.cleaning import clean_question
from lightning_sd.types import Question, QuestionBatch


def collect_batch(questions: Sequence[Question]) -> QuestionBatch:
    """Return a batch of cleaned questions; see :func:`~lightning_sd.text.clean_text`."""
    return QuestionBatch([clean_question(question) for question in questions])


class ResumableLoader(ABC):
    """Batches of questions, counted as they are yielded. Each pass over the loader is one epoch.

    Lightning saves and restores loaders that have ``state_dict`` and ``load_state_dict``. This
    class is not a ``torch.utils.data.DataLoader``, because under DDP Lightning rebuilds every
    DataLoader with its own sampler, which would lose both the position and the order.

    Args:
        epoch_batches: Number of batches after which the trainer ends an epoch.
    """

    def __init__(self, epoch_batches: int) -> None:
        self.epoch_batches = epoch_batches
        self.epoch = 0
        self.batches_yielded = 0
        self._resumed = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in a whole epoch."""

    @abstractmethod
    def iterate_rest(self) -> Iterator[QuestionBatch]:
        """Yield the batches of this epoch, without the first ``batches_yielded``."""

    @abstractmethod
    def load_next(self) -> QuestionBatch:
        """Load the batch of this epoch that follows the first ``batches_yielded``."""

    @abstractmethod
    def get_resume_settings(self) -> dict[str, int]:
        """Return the settings that must be equal when an interrupted epoch is resumed."""

    def peek(self) -> QuestionBatch | None:
        """Return the next batch of this epoch without counting it; None after the last one."""
        return None if self._epoch_ended() else self.load_next()

    def __iter__(self) -> Iterator[QuestionBatch]:
        # A generator does nothing before its first batch is requested. This matters because
        # Lightning creates iterators that it never uses.
        if self._epoch_ended() or (self.batches_yielded and not self._resumed):
            self.epoch, self.batches_yielded = self.epoch + 1, 0
        self._resumed = False
        for batch in self.iterate_rest():
            self.batches_yielded += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the position in it, and the settings that must stay equal."""
        position = {"epoch": self.epoch, "batches_yielded": self.batches_yielded}
        return {**position, **self.get_resume_settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next pass continue at the position where ``state`` was saved.

        Raises:
            ValueError: The data, the seed, or the number of questions of all processes per batch
                has changed.
        """
        for name, value in self.get_resume_settings().items():
            if state.get(name) != value:
                raise ValueError(
                    f"{name}={value}: the checkpoint's epoch was started with "
                    f"{name}={state.get(name)}, so the remaining questions are unknown. Resume "
                    "with the same value, or start a new run from the exported weights."
                )
        self.epoch, self.batches_yielded = int(state["epoch"]), int(state["batches_yielded"])
        self._resumed = True

    def _epoch_ended(self) -> bool:
        return self.batches_yielded >= min(self.epoch_batches, len(self))
