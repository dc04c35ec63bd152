"""Runs that learn nothing stop, and say why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lightning_sd.modules.silence import SilenceError, SilenceGuard


def silent(**reasons: float) -> Mapping[str, float]:
    return {"silent": 1.0, **reasons}


def test_it_stops_after_n_silent_steps_in_a_row() -> None:
    guard = SilenceGuard(3)
    guard.check(silent(no_answer=4.0))
    guard.check(silent(no_answer=4.0))
    guard.check({"silent": 0.5, "no_answer": 1.0})
    guard.check(silent(no_answer=4.0))
    guard.check(silent(no_answer=4.0))
    with pytest.raises(SilenceError, match=r"3 optimizer step.*no_answer 12.*answer pattern"):
        guard.check(silent(no_answer=4.0))


def test_zero_never_stops() -> None:
    guard = SilenceGuard(0)
    for _ in range(50):
        guard.check(silent(no_answer=1.0))
    with pytest.raises(ValueError, match="max_silent_steps=-1"):
        SilenceGuard(-1)


@pytest.mark.parametrize("other", [{}, {"equal_rewards": 4.0}, {"no_answer": 2.0}])
def test_a_critic_that_fails_from_the_first_step_stops_at_once(other: Any) -> None:
    reasons = {"no_teacher": 8.0, "no_teacher/critic_failed": 8.0, **other}
    with pytest.raises(SilenceError, match="check its address and key"):
        SilenceGuard(10).check(silent(**reasons))
    mixed = {**reasons, "no_teacher/critic_failed": 7.0}
    SilenceGuard(10).check(silent(**mixed))  # the critic answered once
    later = SilenceGuard(10)
    later.check({"silent": 0.0})
    later.check(silent(**reasons))  # it worked before: it may come back


@pytest.mark.parametrize(
    ("reasons", "remedy", "other"),
    [
        (
            {"no_teacher": 4.0, "no_teacher/critique_refused:empty": 4.0},
            "another critic",
            "gave no view",
        ),
        ({"no_teacher": 4.0, "equal_rewards": 4.0}, "gave no view", "temperature"),
        ({"equal_rewards": 4.0}, "temperature", "gave no view"),
        ({}, "token_weights", "temperature"),
    ],
)
def test_the_remedy_fits_the_reason(reasons: Any, remedy: str, other: str) -> None:
    guard = SilenceGuard(1)
    with pytest.raises(SilenceError, match=remedy) as caught:
        guard.check(silent(**reasons))
    assert other not in str(caught.value)
