"""Which questions stand in which batch of which epoch, on which rank: pure functions of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Batches = list[list[int]]

_WINDOW = 16
"""Global batches within which questions are sorted by length."""


@dataclass(frozen=True)
class TrainPlan:
    """Shuffled batches, all of one size, the same number on each rank.

    One global batch (of ``batch_size * world_size`` questions) is cut into the ranks' batches in
    order, so that eight questions are the same eight on one rank and on four. Questions that do not
    fill a global batch are left out of that epoch.

    Raises:
        ValueError: Fewer questions than one global batch.
    """

    size: int
    """Questions."""
    batch_size: int
    """Questions a batch and rank."""
    seed: int = 0
    """With the epoch it decides the order."""
    rank: int = 0
    world_size: int = 1
    shuffle: bool = True
    """False: the same order in every epoch."""
    lengths: tuple[int, ...] | None = None
    """Of the questions, in any unit. Given, batches hold questions of like length."""
    repeat: int = 1
    """How many times each batch comes, one time after the other."""

    def __post_init__(self) -> None:
        if self.size < self.batch_size * self.world_size:
            raise ValueError(
                f"batch_size={self.batch_size} on {self.world_size} process(es), but there are "
                f"only {self.size} training questions: not one batch is full. Lower batch_size."
            )

    def __len__(self) -> int:
        return self.repeat * (self.size // (self.batch_size * self.world_size))

    def batches(self, epoch: int) -> Batches:
        """This rank's batches of one epoch, as indices of questions.

        Example:
            >>> TrainPlan(size=5, batch_size=2, shuffle=False).batches(0)
            [[0, 1], [2, 3]]
            >>> TrainPlan(size=5, batch_size=2, shuffle=False, repeat=2).batches(0)
            [[0, 1], [0, 1], [2, 3], [2, 3]]
        """
        order = list(range(self.size))
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mixed(self.seed, epoch))
            order = torch.randperm(self.size, generator=generator).tolist()
        step = self.batch_size * self.world_size
        first = self.rank * self.batch_size
        starts = list(range(0, self.size // step * step, step))
        if self.lengths is not None:
            order, starts = self._by_length(order[: len(starts) * step], starts, epoch)
        return [
            order[start + first : start + first + self.batch_size]
            for start in starts
            for _ in range(self.repeat)
        ]

    def _by_length(
        self, order: list[int], starts: list[int], epoch: int
    ) -> tuple[list[int], list[int]]:
        """Sort by length within windows of some batches, and shuffle the batches again.

        Windows keep chance in the batches: a question meets others in the next epoch.
        """
        assert self.lengths is not None
        window = _WINDOW * self.batch_size * self.world_size
        result: list[int] = []
        for start in range(0, len(order), window):
            result += sorted(order[start : start + window], key=self.lengths.__getitem__)
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mixed(self.seed, epoch) + 1)
            starts = [starts[i] for i in torch.randperm(len(starts), generator=generator).tolist()]
        return result, starts

    def facts(self) -> dict[str, int]:
        """What must be the same for an interrupted epoch to be taken up again."""
        names = ("size", "batch_size", "seed", "world_size", "shuffle", "repeat")
        facts = {name: int(getattr(self, name)) for name in names}
        return {**facts, "by_length": int(self.lengths is not None)}


@dataclass(frozen=True)
class EvalPlan:
    """Each question once on one rank, in order; ranks differ by one question at most.

    A rank's questions are cut evenly, so that all ranks have the same number of batches (unless
    batches are of one question, or there are fewer questions than ranks).
    """

    size: int
    batch_size: int
    """Largest batch."""
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        largest = -(-self.size // self.world_size)
        return min(-(-largest // self.batch_size), len(self._mine()))

    def batches(self, epoch: int) -> Batches:
        """This rank's batches, the same in every epoch.

        Example:
            >>> EvalPlan(size=5, batch_size=2).batches(0)
            [[0, 1], [2, 3], [4]]
            >>> [EvalPlan(5, 2, rank, world_size=2).batches(0) for rank in (0, 1)]
            [[[0, 2], [4]], [[1], [3]]]
        """
        mine, number = self._mine(), len(self)
        sizes = [len(mine) // number + (i < len(mine) % number) for i in range(number)]
        ends = [sum(sizes[: i + 1]) for i in range(number)]
        return [list(mine[end - size : end]) for size, end in zip(sizes, ends, strict=True)]

    def facts(self) -> dict[str, int]:
        """See :meth:`TrainPlan.facts`."""
        return {"size": self.size, "batch_size": self.batch_size, "world_size": self.world_size}

    def _mine(self) -> range:
        return range(self.rank, self.size, self.world_size)


def _mixed(seed: int, epoch: int) -> int:
    """One seed from two, such that epoch 1 of seed 0 is not epoch 0 of seed 1."""
    return (seed * 1_000_003 + epoch * 7_919 + 12_289) % 2**63
