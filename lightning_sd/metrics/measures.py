"""The measures of one rollout under one context, ready to be averaged over rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_sd.metrics.localization import localize
from lightning_sd.metrics.style import STYLE_WORDS, ClassMass, classify_tokens, sum_style_mass
from lightning_sd.metrics.wrong_steps import Steps


class Share(NamedTuple):
    """What one rollout adds to a mean; the mean over rollouts is sum(total) / sum(number)."""

    total: float
    number: float
    chance: float | None = None
    """The expected ``total`` if the rollout's advantages were in random order; None if the measure
    has no such comparison."""


class Measure(NamedTuple):
    """How tables show a measure."""

    label: str
    explanation: str
    percent: bool


MEASURES: Mapping[str, Measure] = {
    "negative_mass": Measure(
        "negative mass at or after the error",
        "share of the negative advantage on tokens from the first wrong step on",
        percent=True,
    ),
    "absolute_mass": Measure(
        "absolute mass at or after the error",
        "share of the absolute advantage on tokens from the first wrong step on",
        percent=True,
    ),
    "prefix_sign": Measure(
        "correct prefix: tokens with A >= 0",
        "share of the tokens before the first wrong step to which the teacher gives at least the "
        "student's probability",
        percent=True,
    ),
    "prefix_mean": Measure(
        "correct prefix: mean A", "mean advantage before the first wrong step, nats", percent=False
    ),
    "step_auroc": Measure(
        "AUROC, wrong steps",
        "how well minus the mean advantage of a step separates wrong from correct steps",
        percent=False,
    ),
    "token_auroc": Measure(
        "AUROC, tokens of wrong steps",
        "how well minus the advantage of a token separates tokens of wrong and of correct steps",
        percent=False,
    ),
    "mean": Measure("mean A", "mean advantage of all tokens, nats", percent=False),
    "mean_abs": Measure("mean |A|", "mean absolute advantage of all tokens, nats", percent=False),
    "style_share": Measure(
        "share of |A| on style tokens",
        "share of the absolute advantage on newlines and words such as Wait and Therefore",
        percent=True,
    ),
    "style_abs": Measure("mean |A|, style tokens", "nats per token", percent=False),
    "task_abs": Measure(
        "mean |A|, task tokens", "all tokens that are not style, nats per token", percent=False
    ),
    "math_abs": Measure("mean |A|, digits and operators", "nats per token", percent=False),
}
"""All measures, in the order of tables."""


def measure_rollout(
    advantages: Sequence[float], steps: Steps, words: Sequence[str] = STYLE_WORDS
) -> dict[str, Share]:
    """Compute the measures of one rollout; measures that it does not define are left out.

    Args:
        advantages: Advantage A_t of each token, in nats.
        steps: Tokens and steps of the rollout, from :func:`.wrong_steps.find_steps`.
        words: Style words.

    Returns:
        One :class:`Share` per measure, under the keys of ``MEASURES``. Empty for a rollout without
        tokens.
    """
    if not advantages:
        return {}
    return {**_measure_position(advantages, steps), **_measure_style(advantages, steps, words)}


def _measure_position(advantages: Sequence[float], steps: Steps) -> dict[str, Share]:
    position = localize(advantages, steps.tokens, steps.wrong)
    if position is None:
        return {}
    both = {
        "negative_mass": (position.negative_mass, position.mass_chance),
        "absolute_mass": (position.absolute_mass, position.mass_chance),
        "prefix_sign": (position.prefix_sign, position.prefix_sign_chance),
        "prefix_mean": (position.prefix_mean, position.prefix_mean_chance),
        "step_auroc": (position.step_auroc, position.step_auroc_chance),
        "token_auroc": (position.token_auroc, position.token_auroc_chance),
    }
    return {n: Share(value, 1, chance) for n, (value, chance) in both.items() if value is not None}


def _measure_style(
    advantages: Sequence[float], steps: Steps, words: Sequence[str]
) -> dict[str, Share]:
    masses = sum_style_mass(advantages, classify_tokens(steps.pieces, words))
    total = masses.total
    shares = {
        "mean": Share(sum(advantages), total.tokens),
        "mean_abs": Share(total.mass, total.tokens),
    }
    if total.mass > 0:
        by_chance = total.mass * masses.style.tokens / total.tokens
        shares["style_share"] = Share(masses.style.mass, total.mass, by_chance)
    classes: dict[str, ClassMass] = {
        "style_abs": masses.style,
        "task_abs": masses.task,
        "math_abs": masses.math,
    }
    for name, part in classes.items():
        if part.tokens:
            shares[name] = Share(part.mass, part.tokens)
    return shares
