"""A micro-batch with its views and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_sd.scoring import LogitsSource, Scores
from lightning_sd.types import Rollout, TeacherView


@dataclass(frozen=True)
class ScoredRollouts:
    """Rollouts, what the teacher saw of each, and the scores of those that take part.

    Scores are packed: the completion tokens of the active rollouts, one after another.
    """

    rollouts: Sequence[Rollout]
    """All rollouts of the micro-batch, because advantages compare a rollout with its siblings."""
    views: Sequence[TeacherView | None]
    """One entry per rollout; None: the teacher has no view of it."""
    active: Sequence[int]
    """Indices of the rollouts that take part in the loss."""
    student: Scores | None
    """None if the active rollouts hold no token."""
    teacher: LogitsSource | None = None
    """Zeros for rollouts without a view; None: the teacher was not run."""
    contrasts: Sequence[LogitsSource] = ()
    """Entry k: under the k-th contrasting view; zeros for rollouts that have fewer."""
    padding: Tensor | float = 0.0
    """A zero that the loss must include; see :func:`~lightning_sd.models.sharding.pad_passes`."""

    @property
    def completions(self) -> list[tuple[int, ...]]:
        """Token ids of the active rollouts."""
        return [self.rollouts[i].ids for i in self.active]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each active rollout."""
        return [len(ids) for ids in self.completions]

    def drop_scores(self) -> ScoredRollouts:
        """Return the rollouts and views alone, which hold no memory of the device."""
        return ScoredRollouts(self.rollouts, self.views, self.active, None)
