"""The settings of a divergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["forward_kl", "reverse_kl", "js"]
Support = Literal["student", "teacher"]


@dataclass(frozen=True)
class DivergenceSpec:
    """A choice of divergence and of the tokens that it compares.

    Raises:
        ValueError: A setting is out of range.
    """

    kind: Kind = "forward_kl"
    beta: float = 0.5
    """The teacher's weight in the mixture M; used by ``js`` only."""
    top_k: int | None = None
    """Number of tokens to compare; None compares the whole vocabulary."""
    support: Support = "student"
    """The model that chooses the k most likely tokens."""
    tail: bool = True
    """Whether all other tokens form one more category; if not, both distributions are
    renormalized over the k tokens."""
    element_clip: float | None = None
    """Upper bound of each vocabulary entry's term before the sum over the vocabulary."""
    ratio_low: float | None = None
    """Lower bound of T / S for each category, the tail included (RESD, eq. 1). The bounded teacher
    is not renormalized, and no gradient flows through the bounds."""
    ratio_high: float | None = None
    """Upper bound of T / S."""

    def __post_init__(self) -> None:
        if self.kind not in ("forward_kl", "reverse_kl", "js"):
            raise ValueError(f"kind={self.kind!r}: choose forward_kl, reverse_kl or js.")
        if self.kind == "js" and not 0 < self.beta < 1:
            raise ValueError(
                f"beta={self.beta}: Jensen-Shannon needs 0 < beta < 1. At 0 and 1 it is zero, not "
                "a KL divergence: use kind forward_kl or reverse_kl instead."
            )
        if self.top_k is not None and self.top_k < (1 if self.tail else 2):
            raise ValueError(
                f"top_k={self.top_k} with tail={self.tail}: must be at least 1 with a tail and at "
                "least 2 without one."
            )
        if self.support not in ("student", "teacher"):
            raise ValueError(f"support={self.support!r}: choose student or teacher.")
        if self.element_clip is not None and not self.element_clip > 0:
            raise ValueError(f"element_clip={self.element_clip}: must be above 0, or null.")
        low, high = self.ratio_low, self.ratio_high
        if (low is not None and not 0 < low <= 1) or (high is not None and not high >= 1):
            raise ValueError(
                f"ratio_low={low}, ratio_high={high}: ratio_low must be above 0 and at most 1, "
                "ratio_high at least 1, or null, so that equal probabilities stay equal."
            )

    @property
    def clips_ratio(self) -> bool:
        """Whether the ratio of teacher to student is bounded."""
        return self.ratio_low is not None or self.ratio_high is not None
