"""Loaders that resume in the middle of an epoch from a checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol

from lightning_sd.data.plan import Batches, TrainPlan
from lightning_sd.tasks.base import Task
from lightning_sd.tasks.stream import QuestionStream, StreamTask
from lightning_sd.text.cleaning import clean_question
from lightning_sd.types import Question, QuestionBatch


def collect_batch(questions: Sequence[Question]) -> QuestionBatch:
    """Return a batch of cleaned questions; see :func:`~lightning_sd.text.clean_text`."""
    return QuestionBatch([clean_question(question) for question in questions])


class BatchPlan(Protocol):
    """Decides which questions are in each batch of an epoch."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        ...

    def make_batches(self, epoch: int) -> Batches:
        """Return the question indices of each batch."""
        ...

    def get_resume_settings(self) -> dict[str, int]:
        """Return the settings that must be equal when an interrupted epoch is resumed."""
        ...


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
    def get_resume_settings(self) -> dict[str, int]:
        """Return the settings that must be equal when an interrupted epoch is resumed."""

    def __iter__(self) -> Iterator[QuestionBatch]:
        # A generator does nothing before its first batch is requested. This matters because
        # Lightning creates iterators that it never uses.
        epoch_ended = self.batches_yielded >= min(self.epoch_batches, len(self))
        if epoch_ended or (self.batches_yielded and not self._resumed):
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


class PlannedLoader(ResumableLoader):
    """Batches of indexable questions in the order of a plan.

    Threads load ahead, not worker processes: questions are small, and processes forked from one
    with threads can hang (this happened in tests with Python 3.11 under DDP). Batches that were
    loaded but not yielded are loaded again after a resume.

    Args:
        questions: Indexable questions. With ``num_workers`` several threads read them.
        plan: Decides which questions are in which batch, for this rank and each epoch.
        num_workers: Number of threads that load ahead; 0 loads in the caller's thread.
        epoch_batches: Number of batches after which the trainer ends an epoch. Default: all.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        plan: BatchPlan,
        *,
        num_workers: int = 0,
        epoch_batches: int | None = None,
    ) -> None:
        super().__init__(len(plan) if epoch_batches is None else epoch_batches)
        self.dataset = questions
        self.plan = plan
        self.num_workers = num_workers

    def __len__(self) -> int:
        return len(self.plan)

    def iterate_rest(self) -> Iterator[QuestionBatch]:
        """Yield the rest of the epoch; see :class:`ResumableLoader`."""
        batches = self.plan.make_batches(self.epoch)[self.batches_yielded :]
        if not self.num_workers:
            yield from map(self._load, batches)
            return
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="questions")
        ahead: deque[Future[QuestionBatch]] = deque()
        try:
            for indices in batches:
                ahead.append(pool.submit(self._load, indices))
                if len(ahead) > 2 * self.num_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def get_resume_settings(self) -> dict[str, int]:
        """Return the settings of the plan."""
        return self.plan.get_resume_settings()

    def _load(self, indices: Sequence[int]) -> QuestionBatch:
        return collect_batch([self.dataset[i] for i in indices])


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
        self._state_before_batch: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.batches

    def iterate_rest(self) -> Iterator[QuestionBatch]:
        """Yield the rest of the epoch; see :class:`ResumableLoader`."""
        if self._questions is None:
            self._questions = iter(self.stream)
        first = self.rank * self.batch_size
        global_batch: list[Question] = []
        for number in range(self.batches_yielded, self.batches):
            if number % self.repeat == 0 or not global_batch:
                self._state_before_batch = dict(self.stream.state_dict())
                global_batch = list(islice(self._questions, self.batch_size * self.world_size))
            yield collect_batch(global_batch[first : first + self.batch_size])

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
        position = self._state_before_batch if batch_repeats else self.stream.state_dict()
        return {**super().state_dict(), "stream": position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the position in the epoch and in the stream."""
        super().load_state_dict(state)
        self.stream.load_state_dict(state["stream"])
        self._questions = None


def build_training_loader(
    task: Task,
    *,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    shuffle: bool = True,
    bucket_by_length: bool = False,
    repeat: int = 1,
    limit: int | float | None = None,
) -> ResumableLoader:
    """Build the loader of a task's training questions.

    Args:
        task: Task with the questions. A :class:`StreamTask` gives a :class:`StreamLoader`, any
            other task a :class:`PlannedLoader`.
        batch_size: Questions per batch and process.
        seed: Seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.
        num_workers: Number of threads that load ahead. Streams ignore it.
        shuffle: False uses the order of the data in every epoch.
        bucket_by_length: Put questions of similar length into one batch.
        repeat: How many times in a row each batch is returned.
        limit: The trainer's ``limit_train_batches``: a number of batches, or a share of them.
    """
    if isinstance(task, StreamTask):
        batches = repeat * (task.epoch_size // (batch_size * world_size))
        return StreamLoader(
            task.stream(),
            batch_size,
            batches,
            rank=rank,
            world_size=world_size,
            repeat=repeat,
            epoch_batches=_apply_limit(limit, batches),
        )
    questions = task.questions("train")
    lengths = tuple(len(question.text) for question in questions) if bucket_by_length else None
    plan = TrainPlan(
        len(questions),
        batch_size,
        seed,
        rank,
        world_size,
        shuffle=shuffle,
        lengths=lengths,
        repeat=repeat,
    )
    return PlannedLoader(
        questions, plan, num_workers=num_workers, epoch_batches=_apply_limit(limit, len(plan))
    )


def _apply_limit(limit: int | float | None, batches: int) -> int:
    """Return the number of batches after which the trainer ends an epoch."""
    return limit if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
