"""Localization against constructed cases and slow loops."""

from __future__ import annotations

import random

import pytest

from lightning_sd.metrics.localization import localize

STEPS = [(0, 4), (4, 8), (8, 12), (12, 16)]
TOKENS = 20


def one_step_off(step: int) -> list[float]:
    """A teacher that differs from the student on one step alone."""
    values = [0.0] * TOKENS
    for index in range(*STEPS[step - 1]):
        values[index] = -2.0
    return values


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_teacher_that_differs_on_the_wrong_step_alone_is_localized(step):
    found = localize(one_step_off(step), STEPS, [step])
    assert found.negative_mass == 1.0
    assert found.absolute_mass == 1.0
    assert found.prefix_sign == 1.0
    assert found.prefix_mean == 0.0
    assert found.step_auroc == 1.0
    assert found.token_auroc == 1.0
    assert found.mass_chance == (TOKENS - STEPS[step - 1][0]) / TOKENS


def test_a_shuffled_teacher_is_as_good_as_chance():
    draws = random.Random(0)
    values = one_step_off(3)
    found = []
    for _ in range(1500):
        draws.shuffle(values)
        found.append(localize(values, STEPS, [3]))
    mean = {
        name: sum(getattr(f, name) for f in found) / len(found)
        for name in ("negative_mass", "absolute_mass", "step_auroc", "token_auroc", "prefix_sign")
    }
    assert mean["step_auroc"] == pytest.approx(0.5, abs=0.03)
    assert mean["token_auroc"] == pytest.approx(0.5, abs=0.03)
    for name in ("negative_mass", "absolute_mass"):
        assert mean[name] == pytest.approx(found[0].mass_chance, abs=0.03)
    assert mean["prefix_sign"] == pytest.approx(found[0].prefix_sign_chance, abs=0.03)


def test_a_teacher_that_dislikes_the_right_steps_is_turned_around():
    values = [-value for value in one_step_off(3)]
    found = localize(values, STEPS, [3])
    assert found.negative_mass is None  # there is none
    assert found.absolute_mass == 1.0
    assert found.step_auroc == 0.0


def auroc_by_pairs(scores, labels):
    """Share of pairs in the right order, ties counting one half."""
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, one in zip(scores, labels, strict=True)
        for b, other in zip(scores, labels, strict=True)
        if one and not other
    ]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_figures_by_slow_loops(seed, scale):
    draws = random.Random(seed)
    values = [draws.choice([0.0, draws.gauss(0, scale)]) for _ in range(TOKENS)]
    wrong = [2, 4]
    found = localize(values, STEPS, wrong)
    mass = [max(-v, 0.0) for v in values]
    assert found.negative_mass == pytest.approx(sum(mass[4:]) / sum(mass))
    assert found.absolute_mass == pytest.approx(
        sum(map(abs, values[4:])) / sum(map(abs, values)), rel=1e-9
    )
    assert found.prefix_sign == sum(v >= 0 for v in values[:4]) / 4
    assert found.prefix_mean == pytest.approx(sum(values[:4]) / 4)
    assert found.prefix_mean_chance == pytest.approx(sum(values) / TOKENS)
    labels = [i + 1 in wrong for i in range(4)]
    means = [-sum(values[a:b]) / (b - a) for a, b in STEPS]
    assert found.step_auroc == pytest.approx(auroc_by_pairs(means, labels))
    within = [(-values[i], labels[n]) for n, (a, b) in enumerate(STEPS) for i in range(a, b)]
    assert found.token_auroc == pytest.approx(auroc_by_pairs(*zip(*within, strict=True)))


def test_chance_of_steps_of_different_length_is_measured():
    """One bad token among many: a long step holds it more often, but it weighs less there."""
    steps = [(0, 1), (1, 40)]
    values = [0.0] * 39 + [-1.0]
    found = localize(values, steps, [1])
    expected = (1 / 40) * 1.0  # the short step is worse only if the bad token falls on it
    assert found.step_auroc_chance == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(
    ("values", "steps", "wrong", "undefined"),
    [
        ([-1.0, 0.0], [(0, 1), (1, 2)], [1], {"prefix_sign", "prefix_mean"}),
        ([-1.0, 0.0], [(0, 2)], [1], {"step_auroc", "token_auroc", "prefix_sign"}),
        ([0.0, 0.0], [(0, 1), (1, 2)], [2], {"negative_mass", "absolute_mass"}),
        # The second step got no token of its own.
        ([-1.0, 0.0], [(0, 2), (2, 2)], [2], {"step_auroc", "token_auroc"}),
    ],
)
def test_what_is_not_defined_is_none(values, steps, wrong, undefined):
    found = localize(values, steps, wrong)
    assert {name for name in undefined if getattr(found, name) is None} == undefined


def test_no_error_and_no_tokens_give_nothing():
    assert localize([1.0, 2.0], [(0, 2)], []) is None
    assert localize([], [(0, 0)], [1]) is None


@pytest.mark.parametrize(("steps", "wrong"), [([(0, 2)], [2]), ([(0, 3)], [1]), ([(0, 2)], [0])])
def test_steps_that_are_not_there_are_refused(steps, wrong):
    with pytest.raises(ValueError, match=r"steps|wrong"):
        localize([1.0, 2.0], steps, wrong)
