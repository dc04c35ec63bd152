"""One guard per known collapse: the value that shows it, its limits, and what to do."""

from __future__ import annotations

from typing import Any

from lightning_sd.callbacks.guards.base import CollapseGuard


class LengthGuard(CollapseGuard):
    """Guard against completions that collapse or explode in length.

    Args:
        low: Smallest ratio of ``train/length`` to its start.
        high: Largest ratio.
        **settings: See :class:`CollapseGuard`.
    """

    meaning = "The student answers at another length than at the start."
    remedy = "Lower the learning rate, use a slower teacher, or stop earlier."

    def __init__(self, low: float | None = 0.6, high: float | None = 1.4, **settings: Any) -> None:
        super().__init__("train/length", low, high, relative=True, **settings)


class EntropyGuard(CollapseGuard):
    """Guard against a student that explores no longer, or becomes unsure of everything.

    Args:
        low: Smallest ratio of ``train/entropy`` to its start.
        high: Largest ratio.
        **settings: See :class:`CollapseGuard`.
    """

    floor = 1e-3
    meaning = "Completions become equal (low entropy) or random (high entropy)."
    remedy = "Lower the learning rate, or use FrozenTeacher or a smaller EMA rate."

    def __init__(self, low: float | None = 0.2, high: float | None = 3.0, **settings: Any) -> None:
        super().__init__("train/entropy", low, high, relative=True, **settings)


class DivergenceGuard(CollapseGuard):
    """Guard against a student that moves away from its teacher.

    Args:
        low: Smallest ratio of ``train/advantage_abs`` to its start.
        high: Largest ratio.
        **settings: See :class:`CollapseGuard`.
    """

    floor = 1e-3
    meaning = "Student and teacher disagree more than at the start."
    remedy = "Lower the learning rate, set trainer.gradient_clip_val, or use a slower teacher."

    def __init__(self, low: float | None = None, high: float | None = 3.0, **settings: Any) -> None:
        super().__init__("train/advantage_abs", low, high, relative=True, **settings)


class StyleGuard(CollapseGuard):
    """Guard against style drift: the student adopts or loses connecting words.

    Args:
        low: Smallest ratio of ``train/style_words`` to its start.
        high: Largest ratio.
        **settings: See :class:`CollapseGuard`.
    """

    floor = 0.01
    meaning = "The student's wording changes, as it does when it learns the teacher's style."
    remedy = "Use ContrastiveHints, or an element_clip of the objective, or stop earlier."

    def __init__(self, low: float | None = 0.5, high: float | None = 2.0, **settings: Any) -> None:
        super().__init__("train/style_words", low, high, relative=True, **settings)


class RepetitionGuard(CollapseGuard):
    """Guard against completions that repeat themselves.

    Args:
        low: Smallest ``train/repeated``.
        high: Largest ``train/repeated``, a share of token runs.
        **settings: See :class:`CollapseGuard`.
    """

    meaning = "Completions repeat themselves."
    remedy = "Raise the sampling temperature, lower the learning rate, or mask with FinishedOnly."

    def __init__(self, low: float | None = None, high: float | None = 0.2, **settings: Any) -> None:
        super().__init__("train/repeated", low, high, **settings)


class RewardGuard(CollapseGuard):
    """Guard against rewards that are saturated, so that nothing is left to learn.

    Args:
        low: Smallest ``train/reward``.
        high: Largest ``train/reward``.
        **settings: See :class:`CollapseGuard`.
    """

    meaning = "Rewards have no room left."
    remedy = "Choose harder questions, or end the run."

    def __init__(
        self, low: float | None = None, high: float | None = 0.98, **settings: Any
    ) -> None:
        super().__init__("train/reward", low, high, **settings)
