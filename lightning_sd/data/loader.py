"""Loaders that go on in the middle of an epoch where a checkpoint left them."""

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
from lightning_sd.types import Question, QuestionBatch


class Plan(Protocol):
    """Says what stands in each batch of an epoch."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def batches(self, epoch: int) -> Batches:
        """Their indices."""
        ...

    def facts(self) -> dict[str, int]:
        """What must not change between saving and resuming."""
        ...


class CountedLoader(ABC):
    """Batches of questions, counted as they are handed out.

    Lightning saves and restores loaders that have ``state_dict`` and ``load_state_dict``. It also
    rebuilds every ``torch.utils.data.DataLoader`` with a sampler of its own under DDP, which would
    lose both the position and the order; so this is none. Each pass over it is one epoch, counted
    here.

    Args:
        epoch_batches: Batches after which the trainer ends an epoch.
    """

    def __init__(self, epoch_batches: int) -> None:
        self.epoch_batches = epoch_batches
        self.epoch = 0
        self.handed_out = 0
        self._resumed = False

    @abstractmethod
    def __len__(self) -> int:
        """Batches of a whole epoch."""

    @abstractmethod
    def remaining(self) -> Iterator[QuestionBatch]:
        """Batches of this epoch, without the first ``handed_out``."""

    @abstractmethod
    def facts(self) -> dict[str, int]:
        """What must be the same for an interrupted epoch to be taken up again."""

    def __iter__(self) -> Iterator[QuestionBatch]:
        # A generator: nothing happens before the first batch is wanted, because Lightning makes
        # iterators that it never uses.
        over = self.handed_out >= min(self.epoch_batches, len(self))
        if over or (self.handed_out and not self._resumed):
            self.epoch, self.handed_out = self.epoch + 1, 0
        self._resumed = False
        for batch in self.remaining():
            self.handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the batches handed out of it, and what must stay the same."""
        return {"epoch": self.epoch, "handed_out": self.handed_out, **self.facts()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next pass go on where ``state`` was taken.

        Raises:
            ValueError: The data, batch size, seed or number of processes has changed.
        """
        for name, now in self.facts().items():
            if state.get(name) != now:
                raise ValueError(
                    f"The checkpoint's epoch was begun with {name}={state.get(name)}, now it is "
                    f"{now}: its questions cannot be told from those to come. Resume with the "
                    "same, or start a new run from the exported weights."
                )
        self.epoch, self.handed_out = int(state["epoch"]), int(state["handed_out"])
        self._resumed = True


class ResumableLoader(CountedLoader):
    """Batches of map-style questions, by a plan.

    Loading ahead is done by threads: questions are light, and worker processes that are forked
    from one with threads of its own can hang (Python 3.11 under DDP did so in our tests). Batches
    that were loaded but not handed out yet do not count, and are loaded again after resuming.

    Args:
        questions: Map-style; read by several threads if there are ``num_workers``.
        plan: Which of them stand in which batch; it knows ranks and epochs.
        num_workers: Threads that load ahead; 0: none.
        epoch_batches: Batches after which the trainer ends an epoch; default: all.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        plan: Plan,
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

    def remaining(self) -> Iterator[QuestionBatch]:
        """See :class:`CountedLoader`."""
        batches = self.plan.batches(self.epoch)[self.handed_out :]
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

    def _load(self, indices: Sequence[int]) -> QuestionBatch:
        return QuestionBatch([self.dataset[i] for i in indices])

    def facts(self) -> dict[str, int]:
        """Those of the plan."""
        return self.plan.facts()


class StreamLoader(CountedLoader):
    """Batches of a stream of questions; an epoch is so many of them.

    Every rank reads the whole stream and keeps its share of each global batch, so one position is
    right for all ranks, and a global batch holds the same questions on any number of them.

    Args:
        stream: Without an end.
        batch_size: Questions a batch and rank.
        batches: Of one epoch.
        rank: This process.
        world_size: Number of processes.
        repeat: How many times each batch comes, one time after the other; all of them count among
            ``batches``.
        epoch_batches: Batches after which the trainer ends an epoch; default: all.
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
                f"epoch_size: an epoch has not one batch of {batch_size} questions on "
                f"{world_size} process(es). Raise epoch_size or lower batch_size."
            )
        super().__init__(batches if epoch_batches is None else epoch_batches)
        self.stream = stream
        self.batch_size, self.batches = batch_size, batches
        self.rank, self.world_size = rank, world_size
        self.repeat = repeat
        self._items: Iterator[Question] | None = None
        self._before: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.batches

    def remaining(self) -> Iterator[QuestionBatch]:
        """See :class:`CountedLoader`."""
        if self._items is None:
            self._items = iter(self.stream)
        first = self.rank * self.batch_size
        together: list[Question] = []
        for number in range(self.handed_out, self.batches):
            if number % self.repeat == 0 or not together:
                self._before = dict(self.stream.state_dict())
                together = list(islice(self._items, self.batch_size * self.world_size))
            yield QuestionBatch(together[first : first + self.batch_size])

    def facts(self) -> dict[str, int]:
        """Sizes."""
        return {
            "batch_size": self.batch_size,
            "batches": self.batches,
            "world_size": self.world_size,
            "repeat": self.repeat,
        }

    def state_dict(self) -> dict[str, Any]:
        """With the stream's position: before the current batch, if that is to come again."""
        again = self.handed_out % self.repeat > 0
        position = self._before if again else self.stream.state_dict()
        return {**super().state_dict(), "stream": position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """With the stream's position."""
        super().load_state_dict(state)
        self.stream.load_state_dict(state["stream"])
        self._items = None


def training_loader(
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
) -> CountedLoader:
    """The training questions of a task, as a stream or by a shuffled plan.

    Args:
        task: Whose questions.
        batch_size: Questions a batch and process.
        seed: Of the order.
        rank: This process.
        world_size: Number of processes.
        num_workers: Threads that load ahead, for questions that are no stream.
        shuffle: False: the same order in every epoch.
        bucket_by_length: Put questions of like length into one batch.
        repeat: How many times each batch comes, one time after the other.
        limit: The trainer's ``limit_train_batches``: a number of batches, or a share of them.
    """

    def ended_after(batches: int) -> int:
        return limit if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))

    if isinstance(task, StreamTask):
        batches = repeat * (task.epoch_size // (batch_size * world_size))
        return StreamLoader(
            task.stream(),
            batch_size,
            batches,
            rank=rank,
            world_size=world_size,
            repeat=repeat,
            epoch_batches=ended_after(batches),
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
    return ResumableLoader(
        questions, plan, num_workers=num_workers, epoch_batches=ended_after(len(plan))
    )
