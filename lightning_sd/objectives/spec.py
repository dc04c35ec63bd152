"""The declaration of what an objective reads, checked before anything is sampled."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

TeacherUse = Literal["required", "optional", "unused"]

STATISTICS = (
    "behavior_logprobs",
    "student_logprobs",
    "student_entropy",
    "teacher_logprobs",
    "teacher_entropy",
    "contrast_logprobs",
    "forward_kl",
    "reverse_kl",
)
"""Optional fields of :class:`~lightning_sd.objectives.inputs.ObjectiveInputs`."""


@dataclass(frozen=True)
class InputSpec:
    """What an objective reads.

    Example:
        >>> InputSpec().add("student_entropy").statistics
        frozenset({'student_entropy'})
        >>> InputSpec(statistics=frozenset({"teacher_logprob"}))
        Traceback (most recent call last):
        ...
        ValueError: statistics: unknown 'teacher_logprob'; did you mean 'teacher_logprobs'? ...

    Raises:
        ValueError: An unknown name, or logits of a teacher that is not used.
    """

    teacher: TeacherUse = "required"
    """``required``: rollouts without a teacher view are left out. ``optional``: rollouts that have
    a view are scored under it. ``unused``: the teacher is never run."""
    teacher_logits: bool = True
    """Whether the loss reads the teacher's logits, and not only the statistics below."""
    statistics: frozenset[str] = frozenset()
    """Which optional fields of the inputs are computed. Each costs up to two products with the
    output head, without a gradient; ``behavior_logprobs`` costs nothing."""

    def __post_init__(self) -> None:
        if self.teacher not in get_args(TeacherUse):
            raise ValueError(f"teacher={self.teacher!r}: choose one of {get_args(TeacherUse)}.")
        for name in sorted(self.statistics - set(STATISTICS)):
            close = difflib.get_close_matches(name, STATISTICS, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"statistics: unknown {name!r}; {hint}Valid names: {', '.join(STATISTICS)}."
            )

    @property
    def uses_teacher(self) -> bool:
        """Whether rollouts that have a view are scored under the teacher."""
        return self.teacher != "unused"

    @property
    def reads_contrasts(self) -> bool:
        """Whether rollouts are scored under their contrasting views too."""
        return "contrast_logprobs" in self.statistics

    def add(self, *statistics: str, **changes: Any) -> InputSpec:
        """Return the declaration with more statistics and other changes.

        Args:
            *statistics: Names from :data:`STATISTICS`.
            **changes: New values of other fields.
        """
        return replace(self, statistics=self.statistics | set(statistics), **changes)


def merge_specs(specs: list[InputSpec]) -> InputSpec:
    """Return the declaration of an objective that is a sum of others.

    The teacher is required only if every term requires it, and unused only if no term uses it.
    """
    uses = {spec.teacher for spec in specs}
    return InputSpec(
        teacher=uses.pop() if len(uses) == 1 else "optional",
        teacher_logits=any(spec.teacher_logits for spec in specs),
        statistics=frozenset[str]().union(*(spec.statistics for spec in specs)),
    )
