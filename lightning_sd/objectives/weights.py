"""Which completion tokens count, and how much: masks and weights for any objective.

A mask takes tokens out of the loss and out of the count by which it is averaged; a weight
multiplies their loss and leaves the count alone. All are off unless an objective's ``weights`` name
them. Each gets :class:`~lightning_sd.objectives.inputs.Signals` and gives ``[N]``, one entry per
token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_sd.objectives.inputs import Signals


@dataclass(frozen=True)
class TokenWeight(ABC):
    """One rule."""

    masks: ClassVar[bool] = False
    """Whether it gives booleans that say which tokens are kept."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """Optional signals that it wants; see :attr:`Objective.reads`."""

    @abstractmethod
    def __call__(self, signals: Signals) -> Tensor:
        """``[N]``."""


@dataclass(frozen=True)
class SkipFirst(TokenWeight):
    """Leave out the first tokens of each completion, where a teacher says what it has seen.

    SDFT's code skips 3, against openings such as "Based on the example".
    """

    tokens: int = 3
    masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens}: must be at least 1 (0: leave the rule out).")

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        return signals.positions >= self.tokens


@dataclass(frozen=True)
class FinishedOnly(TokenWeight):
    """Leave out rollouts that were cut off at the length limit (DAPO's overlong filtering)."""

    masks: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        return signals.of_rows(signals.finished)


@dataclass(frozen=True)
class MixedGroups(TokenWeight):
    """Leave out groups in which all rollouts are right, or all wrong (DAPO, RLCSD)."""

    masks: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        rate = signals.group_mean(signals.correct)
        return signals.of_rows((rate > 0) & (rate < 1))


@dataclass(frozen=True)
class AfterMarker(TokenWeight):
    """Keep only what follows a marker, such as the end of a model's thinking (RCSD).

    A completion without the marker is left out whole.
    """

    marker: str = "</think>"
    masks: ClassVar[bool] = True

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        wanted = signals.tokenizer.encode(self.marker, add_special_tokens=False)
        if not wanted:
            raise ValueError(f"marker={self.marker!r}: the tokenizer makes no token of it.")
        kept = torch.zeros_like(signals.ids, dtype=torch.bool)
        start = 0
        for length in torch.bincount(signals.rows).tolist():
            ids = signals.ids[start : start + length].tolist()
            ends = [
                at + len(wanted)
                for at in range(length - len(wanted) + 1)
                if ids[at : at + len(wanted)] == wanted
            ]
            if ends:
                kept[start + ends[0] : start + length] = True
            start += length
        return kept


@dataclass(frozen=True)
class Top(TokenWeight):
    """Keep the share of tokens where the student is least sure, or farthest from the teacher.

    ``entropy`` ranks by the student's entropy, ``gap`` by the absolute advantage
    |log p_T(y) - log p_S(y)|, 0 where there is no teacher; within the micro-batch, whatever other
    masks say, ties kept.
    """

    share: float = 0.2
    by: Literal["entropy", "gap"] = "entropy"
    masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: must be above 0 and at most 1.")
        if self.by not in ("entropy", "gap"):
            raise ValueError(f"by={self.by!r}: choose entropy or gap.")

    @property
    def reads(self) -> frozenset[str]:  # type: ignore[override]
        """The student's view, and for the gap the teacher's."""
        return frozenset({"student"} if self.by == "entropy" else {"student", "teacher"})

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        if not len(signals.ids):
            return torch.zeros_like(signals.ids, dtype=torch.bool)
        score = signals.student_entropy if self.by == "entropy" else self._gap(signals)
        assert score is not None
        kept = max(1, round(self.share * len(score)))
        return score >= score.topk(kept).values[-1]

    def _gap(self, signals: Signals) -> Tensor:
        assert signals.student_logprobs is not None
        if signals.teacher_logprobs is None:  # no rollout of this batch has a view
            return torch.zeros_like(signals.student_logprobs)
        gap = (signals.teacher_logprobs - signals.student_logprobs).abs()
        return gap * signals.of_rows(signals.seen)


@dataclass(frozen=True)
class Position(TokenWeight):
    """Weigh tokens by their place, from ``first`` to ``last`` along the completion.

    A teacher's later tokens are the more reliable ones (arXiv 2605.21606).
    """

    first: float = 0.0
    last: float = 1.0

    def __post_init__(self) -> None:
        if self.first < 0 or self.last < 0:
            raise ValueError(f"first={self.first}, last={self.last}: must not be negative.")

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        ends = (signals.of_rows(signals.lengths) - 1).clamp(min=1)
        return self.first + (self.last - self.first) * signals.positions / ends


@dataclass(frozen=True)
class PassRate(TokenWeight):
    """Weigh questions by (p (1 - p))^power, p the share of their rollouts that are right.

    Questions of a middling pass rate teach most (arXiv 2603.11178; power 0.5: 2605.27765).
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise ValueError(f"power={self.power}: must be above 0.")

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        rate = signals.group_mean(signals.correct)
        return signals.of_rows((rate * (1 - rate)) ** self.power)


@dataclass(frozen=True)
class Rebalance(TokenWeight):
    """Weigh successes by (1 - s)^a and failures by s^b, s the batch's share of successes (RESD).

    s is clamped to [1/B, 1 - 1/B] with B rollouts on all ranks, and the weights are divided by
    their mean over the batch (RESD, appendix B).
    """

    success: float = 1.0
    failure: float = 1.0

    def __call__(self, signals: Signals) -> Tensor:
        """See the class."""
        correct = signals.correct & signals.sampled
        failed = ~signals.correct & signals.sampled
        counts = torch.stack([correct.sum(), failed.sum()]).double()
        right, wrong = signals.total(counts).tolist()
        number = right + wrong
        if not number:
            return signals.of_rows(torch.ones_like(signals.rewards))
        share = min(max(right / number, 1 / number), 1 - 1 / number) if number > 1 else 0.5
        high, low = (1 - share) ** self.success, share**self.failure
        mean = (right * high + wrong * low) / number
        weight = torch.where(signals.correct, high / mean, low / mean)
        return signals.of_rows(weight.to(signals.rewards.dtype))
