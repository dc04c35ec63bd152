"""The loader of indexable questions, and the choice of a task's loader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from lightning_sd.data.plan import Batches, TrainPlan
from lightning_sd.data.resumable import ResumableLoader, collect_batch
from lightning_sd.data.stream_loader import StreamLoader
from lightning_sd.tasks.base import Task
from lightning_sd.tasks.stream import StreamTask
from lightning_sd.types import Question, QuestionBatch


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
        self._batches: Batches = []

    def __len__(self) -> int:
        return len(self.plan)

    def iterate_rest(self) -> Iterator[QuestionBatch]:
        """Yield the rest of the epoch; see :class:`ResumableLoader`."""
        self._batches = self.plan.make_batches(self.epoch)
        batches = self._batches[self.batches_yielded :]
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

    def load_next(self) -> QuestionBatch:
        """Load the next batch; see :class:`ResumableLoader`."""
        return self._load(self._batches[self.batches_yielded])

    def get_resume_settings(self) -> dict[str, int]:
        """Return the settings of the plan."""
        return self.plan.get_resume_settings()

    def _load(self, indices: Sequence[int]) -> QuestionBatch:
        return collect_batch([self.dataset[i] for i in indices])


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
