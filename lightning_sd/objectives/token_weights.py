"""Masks and weights of completion tokens, for any objective.

A mask removes tokens from the loss and from the count by which it is averaged. A weight multiplies
the loss of tokens and leaves the count unchanged. An objective applies those that its
``token_weights`` lists. Each maps :class:`~lightning_sd.objectives.inputs.ObjectiveInputs` to one
entry per token, ``[N]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lightning_sd.objectives.inputs import ObjectiveInputs, StepState


@dataclass(frozen=True)
class TokenWeight(ABC):
    """A rule that masks or weighs tokens."""

    is_mask: ClassVar[bool] = False
    """Whether the result is boolean and says which tokens are kept."""
    statistics: ClassVar[frozenset[str]] = frozenset()
    """Optional inputs that it reads; see :data:`~lightning_sd.objectives.spec.STATISTICS`."""

    @abstractmethod
    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return a mask or a factor for each token, ``[N]``.

        Args:
            inputs: The micro-batch.
            state: Step number, tokenizer, and the sum over ranks.
        """


@dataclass(frozen=True)
class SkipFirst(TokenWeight):
    """Leave out the first tokens of each completion.

    A teacher may open with a reference to its context, such as "Based on the example"; SDFT's code
    skips 3 tokens.
    """

    tokens: int = 3
    is_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens={self.tokens}: must be at least 1 (0: leave the rule out).")

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        return inputs.positions >= self.tokens


@dataclass(frozen=True)
class FinishedOnly(TokenWeight):
    """Leave out rollouts that were cut off at the length limit (DAPO's overlong filtering)."""

    is_mask: ClassVar[bool] = True

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        return inputs.expand_to_tokens(inputs.finished)


@dataclass(frozen=True)
class MixedGroups(TokenWeight):
    """Leave out groups in which all rollouts are right, or all wrong (DAPO, RLCSD)."""

    is_mask: ClassVar[bool] = True

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        rate = inputs.average_over_groups(inputs.correct)
        return inputs.expand_to_tokens((rate > 0) & (rate < 1))


@dataclass(frozen=True)
class AfterMarker(TokenWeight):
    """Keep only tokens after a marker, such as the end of a model's thinking (RCSD).

    A completion without the marker is left out.
    """

    marker: str = "</think>"
    is_mask: ClassVar[bool] = True

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        wanted = state.tokenizer.encode(self.marker, add_special_tokens=False)
        if not wanted:
            raise ValueError(
                f"marker={self.marker!r}: the tokenizer encodes it to no token; choose another."
            )
        kept = torch.zeros_like(inputs.ids, dtype=torch.bool)
        start = 0
        for length in torch.bincount(inputs.rows).tolist():
            ids = inputs.ids[start : start + length].tolist()
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
class TopTokens(TokenWeight):
    """Keep the share of tokens with the highest entropy, or the widest gap to the teacher.

    ``entropy`` ranks by the student's entropy. ``gap`` ranks by |log p_T(y) - log p_S(y)|, which is
    0 without a teacher. The ranking is over the micro-batch and ignores other masks; ties are kept.
    """

    share: float = 0.2
    by: Literal["entropy", "gap"] = "entropy"
    is_mask: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: must be above 0 and at most 1.")
        if self.by not in ("entropy", "gap"):
            raise ValueError(f"by={self.by!r}: choose entropy or gap.")

    @property
    def statistics(self) -> frozenset[str]:  # type: ignore[override]
        """The student's entropy, or both models' log-probabilities."""
        return frozenset(
            {"student_entropy"}
            if self.by == "entropy"
            else {"student_logprobs", "teacher_logprobs"}
        )

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        if not len(inputs.ids):
            return torch.zeros_like(inputs.ids, dtype=torch.bool)
        gap = self.by == "gap"
        score = _compute_advantage(inputs).abs() if gap else inputs.student_entropy
        assert score is not None
        kept = max(1, round(self.share * len(score)))
        return score >= score.topk(kept).values[-1]


@dataclass(frozen=True)
class AdvantageSign(TokenWeight):
    """Keep the sampled tokens that the teacher finds more probable than the student, or less.

    The sign is that of log p_T(y) - log p_S(y). Tokens without a teacher, or with equal
    probabilities, are left out.
    """

    sign: Literal["positive", "negative"] = "positive"
    is_mask: ClassVar[bool] = True
    statistics: ClassVar[frozenset[str]] = frozenset({"student_logprobs", "teacher_logprobs"})

    def __post_init__(self) -> None:
        if self.sign not in ("positive", "negative"):
            raise ValueError(f"sign={self.sign!r}: choose positive or negative.")

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        advantage = _compute_advantage(inputs)
        return advantage > 0 if self.sign == "positive" else advantage < 0


@dataclass(frozen=True)
class Position(TokenWeight):
    """Weigh tokens by position, from ``first`` to ``last`` along the completion.

    A teacher is more reliable at later tokens (arXiv 2605.21606).
    """

    first: float = 0.0
    last: float = 1.0

    def __post_init__(self) -> None:
        if self.first < 0 or self.last < 0:
            raise ValueError(f"first={self.first}, last={self.last}: must not be negative.")

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        ends = (inputs.expand_to_tokens(inputs.lengths) - 1).clamp(min=1)
        return self.first + (self.last - self.first) * inputs.positions / ends


@dataclass(frozen=True)
class PassRate(TokenWeight):
    """Weigh questions by (p (1 - p))^power, where p is the share of correct rollouts.

    Questions with a pass rate near one half teach most (arXiv 2603.11178; power 0.5: 2605.27765).
    """

    power: float = 1.0

    def __post_init__(self) -> None:
        if not self.power > 0:
            raise ValueError(f"power={self.power}: must be above 0.")

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        rate = inputs.average_over_groups(inputs.correct)
        return inputs.expand_to_tokens((rate * (1 - rate)) ** self.power)


@dataclass(frozen=True)
class Rebalance(TokenWeight):
    """Weigh successes by (1 - s)^success and failures by s^failure (RESD).

    s is the batch's share of successes, clamped to [1/B, 1 - 1/B] with B rollouts on all ranks. The
    weights are divided by their mean over the batch (RESD, appendix B).
    """

    success: float = 1.0
    failure: float = 1.0

    def __call__(self, inputs: ObjectiveInputs, state: StepState) -> Tensor:
        """Return one entry per token; see the class."""
        correct = inputs.correct & inputs.by_student
        failed = ~inputs.correct & inputs.by_student
        counts = torch.stack([correct.sum(), failed.sum()]).double()
        right, wrong = state.sum_over_ranks(counts).tolist()
        number = right + wrong
        if not number:
            return inputs.expand_to_tokens(torch.ones_like(inputs.rewards))
        share = min(max(right / number, 1 / number), 1 - 1 / number) if number > 1 else 0.5
        high, low = (1 - share) ** self.success, share**self.failure
        mean = (right * high + wrong * low) / number
        weight = torch.where(inputs.correct, high / mean, low / mean)
        return inputs.expand_to_tokens(weight.to(inputs.rewards.dtype))


def _compute_advantage(inputs: ObjectiveInputs) -> Tensor:
    """Return log p_T(y) - log p_S(y) of each token, ``[N]``; 0 without a teacher."""
    # Statistics of no tokens are not computed, and without a view there is no teacher.
    if not len(inputs.ids) or inputs.teacher_logprobs is None:
        return torch.zeros_like(inputs.ids, dtype=torch.float32)
    assert inputs.student_logprobs is not None
    advantage = inputs.teacher_logprobs - inputs.student_logprobs
    return torch.where(inputs.expand_to_tokens(inputs.has_view), advantage, 0.0)
