"""A loader of an endless stream of questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from lightning_sd.data.resumable import ResumableLoader, collect_batch
from lightning_sd.tasks.stream import QuestionStream
from lightning_sd.types import Question, QuestionBatch


class _GlobalBatch(NamedTuple):
    """The questions of all ranks in one batch, and the stream's position before them."""

    questions: list[Question]
    position: dict[str, Any]


class StreamLoader(ResumableLoader):
    """Batches of an endless stream of questions, with a fixed number of batches per epoch.

    Every rank reads the whole stream and keeps its share of each global batch. One position is
    therefore valid for all ranks, and a global batch holds the same questions on any number of
    ranks.

    Args:
        stream: Endless stream of questions.
        batch_size: Questions per batch and rank.
        batches: Batches per epoch, repeated ones included.
        rank: Rank of this process.
        world_size: Number of processes.
        repeat: How many times in a row each batch is returned.
        epoch_batches: Number of batches after which the trainer ends an epoch. Default: all.

    Raises:
        ValueError: ``batches`` is below 1.
    """

    def __init__(
        self,
        stream: QuestionStream,
        batch_size: int,
        batches: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        repeat: int = 1,
        epoch_batches: int | None = None,
    ) -> None:
        if batches < 1:
            raise ValueError(
                f"epoch_size: it is smaller than one batch of {batch_size} questions on each of "
                f"{world_size} process(es). Raise epoch_size or lower batch_size."
            )
        super().__init__(batches if epoch_batches is None else epoch_batches)
        self.stream = stream
        self.batch_size, self.batches = batch_size, batches
        self.rank, self.world_size = rank, world_size
        self.repeat = repeat
        self._questions: Iterator[Question] | None = None
        self._batch = self._following = _GlobalBatch([], {})

    def __len__(self) -> int:
        return self.batches

    def iterate_rest(self) -> Iterator[QuestionBatch]:
        """Yield the rest of the epoch; see :class:`ResumableLoader`."""
        self._batch = _GlobalBatch([], {})
        for number in range(self.batches_yielded, self.batches):
            if number % self.repeat == 0 or not self._batch.questions:
                self._batch, self._following = self._following, _GlobalBatch([], {})
                if not self._batch.questions:
                    self._batch = self._read()
            yield self._take_share(self._batch)

    def load_next(self) -> QuestionBatch:
        """Load the next batch; see :class:`ResumableLoader`."""
        if self.batches_yielded % self.repeat > 0:
            return self._take_share(self._batch)
        if not self._following.questions:
            self._following = self._read()
        return self._take_share(self._following)

    def _read(self) -> _GlobalBatch:
        if self._questions is None:
            self._questions = iter(self.stream)
        position = dict(self.stream.state_dict())
        size = self.batch_size * self.world_size
        return _GlobalBatch(list(islice(self._questions, size)), position)

    def _take_share(self, batch: _GlobalBatch) -> QuestionBatch:
        first = self.rank * self.batch_size
        return collect_batch(batch.questions[first : first + self.batch_size])

    def get_resume_settings(self) -> dict[str, int]:
        """Return the sizes that must be equal when an interrupted epoch is resumed."""
        return {
            "global_batch_size": self.batch_size * self.world_size,
            "batches": self.batches,
            "repeat": self.repeat,
        }

    def state_dict(self) -> dict[str, Any]:
        """Add the stream's position: before the current batch, if that batch is repeated."""
        batch_repeats = self.batches_yielded % self.repeat > 0
        following = self._batch if batch_repeats else self._following
        position = following.position if following.questions else self.stream.state_dict()
        return {**super().state_dict(), "stream": position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the position in the epoch and in the stream."""
        super().load_state_dict(state)
        self.stream.load_state_dict(state["stream"])
        self._questions, self._following = None, _GlobalBatch([], {})
