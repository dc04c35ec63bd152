"""Each guard acts on its collapse and leaves a healthy run alone."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_sd import (
    CollapseError,
    CollapseGuard,
    DivergenceGuard,
    EntropyGuard,
    LengthGuard,
    ReferenceSolution,
    RepetitionGuard,
    RewardGuard,
    StyleGuard,
)
from tests.stubs import LabData, module, trainer

# A guard, the value that it reads, a healthy course of the value, and one that ends in a collapse.
COURSES = {
    "shorter": (LengthGuard, "train/length", [40, 38, 36, 30], [40, 38, 20, 10]),
    "longer": (LengthGuard, "train/length", [40, 42, 50, 55], [40, 42, 70, 90]),
    "certain": (EntropyGuard, "train/entropy", [0.3, 0.3, 0.2, 0.1], [0.3, 0.3, 0.05, 0.01]),
    "random": (EntropyGuard, "train/entropy", [0.3, 0.3, 0.5, 0.8], [0.3, 0.3, 1.0, 2.0]),
    "apart": (DivergenceGuard, "train/advantage_abs", [0.3, 0.3, 0.01, 0.0], [0.3, 0.3, 1.0, 3.0]),
    "adopted": (StyleGuard, "train/style_words", [0.1, 0.1, 0.12, 0.15], [0.1, 0.1, 0.2, 0.3]),
    "lost": (StyleGuard, "train/style_words", [0.1, 0.1, 0.08, 0.06], [0.1, 0.1, 0.02, 0.0]),
    "new": (StyleGuard, "train/style_words", [0.0, 0.0, 0.01, 0.01], [0.0, 0.0, 0.02, 0.05]),
    "loops": (RepetitionGuard, "train/repeated", [0.0, 0.05, 0.1, 0.1], [0.0, 0.1, 0.2, 0.8]),
    "saturated": (RewardGuard, "train/reward", [0.5, 0.8, 0.95, 0.9], [0.5, 0.9, 1.0, 1.0]),
}


def watch(guard, name, values):
    """Let a guard see one value per optimizer step."""
    run = SimpleNamespace(global_step=0, strategy=SingleDeviceStrategy(), callback_metrics={})
    guard.on_train_start(run, None)
    for step, value in enumerate(values, start=1):
        run.global_step, run.callback_metrics = step, {name: value}
        guard.on_train_batch_end(run, None, None, None, 0)


@pytest.mark.parametrize("course", COURSES)
def test_a_collapse_is_seen(course):
    kind, name, _, collapse = COURSES[course]
    with pytest.raises(CollapseError, match=f"{kind.__name__}: over steps 3 to 4, {name} is"):
        watch(kind(window=2, action="stop"), name, collapse)


@pytest.mark.parametrize("course", COURSES)
def test_a_healthy_run_is_left_alone(course):
    kind, name, healthy, _ = COURSES[course]
    watch(kind(window=2, action="stop"), name, healthy)


def test_a_single_value_is_averaged_with_its_window():
    watch(LengthGuard(window=3, action="stop"), "train/length", [40, 40, 40, 10, 40, 40])


def test_any_logged_value_can_be_guarded():
    guard = CollapseGuard("train/context_cut", high=100, window=1, action="stop")
    with pytest.raises(CollapseError, match="context_cut is 120, at least its limit of 100"):
        watch(guard, "train/context_cut", [0, 99, 120])


def test_a_warning_comes_once_per_window():
    with pytest.warns(UserWarning, match="train/reward is 1") as caught:
        watch(RewardGuard(window=2), "train/reward", [1.0] * 5)
    assert len(caught) == 2


def test_a_value_that_is_not_finite_is_passed_over():
    watch(RewardGuard(window=1, action="stop"), "train/reward", [float("nan"), float("inf")])


def test_a_resumed_guard_knows_the_start():
    first = LengthGuard(window=2)
    watch(first, "train/length", [40, 40])
    second = LengthGuard(window=2, action="stop")
    second.load_state_dict(first.state_dict())
    with pytest.raises(CollapseError, match="it was 40 at the start"):
        watch(second, "train/length", [10, 10])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"low": None, "high": None}, "set one"),
        ({"low": 2.0, "high": 1.0}, "low=2.0 is above high=1.0"),
        ({"action": "panic"}, "action='panic'"),
        ({"window": 0}, "window=0"),
        ({"max_rollbacks": -1}, "max_rollbacks=-1"),
    ],
)
def test_settings_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        LengthGuard(**arguments)


def test_every_guard_finds_its_value_in_a_real_run(make_llama, tokenizer, tmp_path):
    kinds = dict.fromkeys(kind for kind, *_ in COURSES.values())
    guards = [kind(low=None, high=1e9, window=2, action="stop") for kind in kinds]
    run = trainer(tmp_path, ReferenceSolution(), *guards)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*guarded nothing")
        run.fit(module(make_llama(), tokenizer), datamodule=LabData())
    assert all(guard.start is not None for guard in guards)


def test_a_value_that_is_never_logged_is_named(make_llama, tokenizer, tmp_path):
    guard = CollapseGuard("train/lenght", high=1.0, window=2)
    with pytest.warns(UserWarning, match="values of train/lenght were logged"):
        trainer(tmp_path, ReferenceSolution(), guard).fit(
            module(make_llama(), tokenizer), datamodule=LabData()
        )
