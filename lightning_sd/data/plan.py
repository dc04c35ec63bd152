"""Plans: which questions are in which batch of which epoch on which rank, as pure functions."""

from __future__ import annotations

from dataclasses import dataclass

import torch

Batches = list[list[int]]
"""Question indices per batch."""

_SORT_WINDOW = 16
"""Number of global batches within which questions are sorted by length."""


@dataclass(frozen=True)
class TrainPlan:
    """Shuffled batches of equal size, the same number on each rank.

    Each global batch of ``batch_size * world_size`` questions is split into one batch per rank. A
    global batch of eight questions therefore holds the same questions on one rank and on four.
    Questions that do not fill a global batch are left out of that epoch.

    Raises:
        ValueError: There are fewer questions than one global batch needs.
    """

    size: int
    """Number of questions."""
    batch_size: int
    """Questions per batch and rank."""
    seed: int = 0
    """Seed of the order, together with the epoch."""
    rank: int = 0
    """Rank of this process."""
    world_size: int = 1
    """Number of processes."""
    shuffle: bool = True
    """False uses the order of the data in every epoch."""
    lengths: tuple[int, ...] | None = None
    """Length of each question, in any unit. If given, a batch holds questions of similar length."""
    repeat: int = 1
    """How many times in a row each batch is returned."""

    def __post_init__(self) -> None:
        if self.size < self.batch_size * self.world_size:
            raise ValueError(
                f"batch_size={self.batch_size}: {self.world_size} process(es) need "
                f"{self.batch_size * self.world_size} questions per step, but there are only "
                f"{self.size} training questions. Lower batch_size."
            )

    def __len__(self) -> int:
        return self.repeat * (self.size // (self.batch_size * self.world_size))

    def make_batches(self, epoch: int) -> Batches:
        """Return this rank's batches of one epoch.

        Example:
            >>> TrainPlan(size=5, batch_size=2, shuffle=False).make_batches(0)
            [[0, 1], [2, 3]]
            >>> TrainPlan(size=5, batch_size=2, shuffle=False, repeat=2).make_batches(0)
            [[0, 1], [0, 1], [2, 3], [2, 3]]
        """
        order = list(range(self.size))
        if self.shuffle:
            generator = torch.Generator().manual_seed(_mix_seed(self.seed, epoch))
            order = torch.randperm(self.size, generator=generator).tolist()
        step = self.batch_size * self.world_size
        first = self.rank * self.batch_size
        starts = list(range(0, self.size // step * step, step))
        if self.lengths is not None:
            order = self._sort_by_length(order[: len(starts) * step], self.lengths)
            starts = self._shuffle_starts(starts, epoch)
        return [
            order[start + first : start + first + self.batch_size]
            for start in starts
            for _ in range(self.repeat)
        ]

    def get_resume_settings(self) -> dict[str, int]:
        """Return the settings that must be equal when an interrupted epoch is resumed."""
        names = ("size", "seed", "shuffle", "repeat")
        settings = {name: int(getattr(self, name)) for name in names}
        settings["global_batch_size"] = self.batch_size * self.world_size
        return {**settings, "by_length": int(self.lengths is not None)}

    def _sort_by_length(self, order: list[int], lengths: tuple[int, ...]) -> list[int]:
        """Sort by length within windows, so that the members of a batch still vary by epoch."""
        window = _SORT_WINDOW * self.batch_size * self.world_size
        return [
            index
            for start in range(0, len(order), window)
            for index in sorted(order[start : start + window], key=lengths.__getitem__)
        ]

    def _shuffle_starts(self, starts: list[int], epoch: int) -> list[int]:
        """Shuffle the batches, so that they do not come in the order of their lengths."""
        if not self.shuffle:
            return starts
        generator = torch.Generator().manual_seed(_mix_seed(self.seed, epoch) + 1)
        return [starts[i] for i in torch.randperm(len(starts), generator=generator).tolist()]


@dataclass(frozen=True)
class EvalPlan:
    """Each question once on one rank, in order. Ranks differ by one question at most.

    A rank's questions are split evenly, so that all ranks have the same number of batches. The only
    exceptions are batches of one question, and fewer questions than ranks.
    """

    size: int
    """Number of questions."""
    batch_size: int
    """Maximum number of questions per batch and rank."""
    rank: int = 0
    """Rank of this process."""
    world_size: int = 1
    """Number of processes."""

    def __len__(self) -> int:
        largest_share = -(-self.size // self.world_size)
        return min(-(-largest_share // self.batch_size), len(self._select_own()))

    def make_batches(self, epoch: int) -> Batches:
        """Return this rank's batches, which are the same in every epoch.

        Example:
            >>> EvalPlan(size=5, batch_size=2).make_batches(0)
            [[0, 1], [2, 3], [4]]
            >>> [EvalPlan(5, 2, rank, world_size=2).make_batches(0) for rank in (0, 1)]
            [[[0, 2], [4]], [[1], [3]]]
        """
        own, number = self._select_own(), len(self)
        sizes = [len(own) // number + (i < len(own) % number) for i in range(number)]
        ends = [sum(sizes[: i + 1]) for i in range(number)]
        return [list(own[end - size : end]) for size, end in zip(sizes, ends, strict=True)]

    def get_resume_settings(self) -> dict[str, int]:
        """Return the settings that must be equal when an interrupted epoch is resumed."""
        return {"size": self.size, "batch_size": self.batch_size, "world_size": self.world_size}

    def _select_own(self) -> range:
        return range(self.rank, self.size, self.world_size)


def _mix_seed(seed: int, epoch: int) -> int:
    """Combine seed and epoch so that epoch 1 of seed 0 differs from epoch 0 of seed 1."""
    return (seed * 1_000_003 + epoch * 7_919 + 12_289) % 2**63
