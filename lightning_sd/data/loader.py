"""A loader that goes on in the middle of an epoch where a checkpoint left it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch.utils.data import DataLoader

from lightning_sd.data.plan import Batches
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


class ResumableLoader:
    """Batches of questions by a plan, counted as they are handed out.

    Lightning saves and restores loaders that have ``state_dict`` and ``load_state_dict``. It also
    rebuilds every ``torch.utils.data.DataLoader`` with a sampler of its own under DDP, which would
    lose both the position and the plan; so this is none, but uses one inside. Each pass over it is
    one epoch, counted here: batches that were prefetched by workers but not handed out yet are not
    counted, and are loaded again after resuming.

    Args:
        questions: Map-style.
        plan: Which of them stand in which batch; it knows ranks and epochs.
        num_workers: Processes that load ahead; 0: none.
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
        self.dataset = questions
        self.plan = plan
        self.num_workers = num_workers
        self.epoch_batches = len(plan) if epoch_batches is None else epoch_batches
        self.epoch = 0
        self.handed_out = 0
        self._resumed = False

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[QuestionBatch]:
        # A generator: nothing happens before the first batch is wanted, because Lightning makes
        # iterators that it never uses.
        self._begin()
        batches = self.plan.batches(self.epoch)[self.handed_out :]
        loader: DataLoader[Question] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=QuestionBatch,
            num_workers=self.num_workers,
        )
        for batch in loader:
            self.handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, the batches handed out of it, and what must stay the same."""
        return {"epoch": self.epoch, "handed_out": self.handed_out, **self.plan.facts()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next pass go on where ``state`` was taken.

        Raises:
            ValueError: The data, batch size, seed or number of processes has changed.
        """
        for name, now in self.plan.facts().items():
            if state.get(name) != now:
                raise ValueError(
                    f"The checkpoint's epoch was begun with {name}={state.get(name)}, now it is "
                    f"{now}: its questions cannot be told from those to come. Resume with the "
                    "same, or start a new run from the exported weights."
                )
        self.epoch, self.handed_out = int(state["epoch"]), int(state["handed_out"])
        self._resumed = True

    def _begin(self) -> None:
        over = self.handed_out >= min(self.epoch_batches, len(self.plan))
        if over or (self.handed_out and not self._resumed):
            self.epoch, self.handed_out = self.epoch + 1, 0
        self._resumed = False
