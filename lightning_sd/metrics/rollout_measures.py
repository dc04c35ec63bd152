"""The figures of one rollout under one context, ready to be averaged over many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_sd.metrics.localization import localise
from lightning_sd.metrics.style import STYLE_WORDS, ClassMass, style_mass, token_classes
from lightning_sd.metrics.wrong_steps import Steps


class Share(NamedTuple):
    """One rollout's part in a mean: means over rollouts are sum(total) / sum(number)."""

    total: float
    number: float
    chance: float | None = None
    """What ``total`` is on average if the rollout's advantages are put in random order; None: there
    is no such comparison."""


class Figure(NamedTuple):
    """What one figure is, for tables."""

    label: str
    explanation: str
    percent: bool


FIGURES: Mapping[str, Figure] = {
    "negative_mass": Figure(
        "negative mass at or after the error",
        "share of the negative advantage on tokens from the first wrong step on",
        percent=True,
    ),
    "absolute_mass": Figure(
        "absolute mass at or after the error",
        "share of the absolute advantage on tokens from the first wrong step on",
        percent=True,
    ),
    "prefix_sign": Figure(
        "correct prefix: tokens with A >= 0",
        "share of the tokens before the first wrong step that the teacher likes at least as well",
        percent=True,
    ),
    "prefix_mean": Figure(
        "correct prefix: mean A", "mean advantage before the first wrong step, nats", percent=False
    ),
    "step_auroc": Figure(
        "AUROC, wrong steps",
        "how well minus the mean advantage of a step tells wrong from right",
        percent=False,
    ),
    "token_auroc": Figure(
        "AUROC, tokens of wrong steps",
        "how well minus the advantage of a token tells tokens of wrong steps from those of right",
        percent=False,
    ),
    "mean": Figure("mean A", "mean advantage of all tokens, nats", percent=False),
    "mean_abs": Figure("mean |A|", "mean absolute advantage of all tokens, nats", percent=False),
    "style_share": Figure(
        "share of |A| on style tokens",
        "share of the absolute advantage on newlines and words such as Wait and Therefore",
        percent=True,
    ),
    "style_abs": Figure("mean |A|, style tokens", "nats a token", percent=False),
    "task_abs": Figure(
        "mean |A|, task tokens", "all that is not style, nats a token", percent=False
    ),
    "math_abs": Figure("mean |A|, digits and operators", "nats a token", percent=False),
}
"""All figures, in the order of tables."""


def rollout_figures(
    advantages: Sequence[float], steps: Steps, words: Sequence[str] = STYLE_WORDS
) -> dict[str, Share]:
    """Work out the figures of one rollout; those that are not defined for it are left out.

    Args:
        advantages: A_t of each token, in nats.
        steps: Its tokens and steps, as :func:`.errors.find_steps` gives them.
        words: Style words.

    Returns:
        Shares by the names of ``FIGURES``.
    """
    if not advantages:
        return {}
    return {**_localisation(advantages, steps), **_drift(advantages, steps, words)}


def _localisation(advantages: Sequence[float], steps: Steps) -> dict[str, Share]:
    found = localise(advantages, steps.tokens, steps.wrong)
    if found is None:
        return {}
    both = {
        "negative_mass": (found.negative_mass, found.mass_chance),
        "absolute_mass": (found.absolute_mass, found.mass_chance),
        "prefix_sign": (found.prefix_sign, found.prefix_sign_chance),
        "prefix_mean": (found.prefix_mean, found.prefix_mean_chance),
        "step_auroc": (found.step_auroc, found.step_auroc_chance),
        "token_auroc": (found.token_auroc, found.token_auroc_chance),
    }
    return {n: Share(value, 1, chance) for n, (value, chance) in both.items() if value is not None}


def _drift(advantages: Sequence[float], steps: Steps, words: Sequence[str]) -> dict[str, Share]:
    masses = style_mass(advantages, token_classes(steps.pieces, words))
    total = masses.total
    found = {
        "mean": Share(sum(advantages), total.tokens),
        "mean_abs": Share(total.mass, total.tokens),
    }
    if total.mass > 0:
        by_chance = total.mass * masses.style.tokens / total.tokens
        found["style_share"] = Share(masses.style.mass, total.mass, by_chance)
    classes: dict[str, ClassMass] = {
        "style_abs": masses.style,
        "task_abs": masses.task,
        "math_abs": masses.math,
    }
    for name, part in classes.items():
        if part.tokens:
            found[name] = Share(part.mass, part.tokens)
    return found
