"""The measures of one rollout under one context, ready to be averaged over rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from lightning_sd.metrics.localization import localize
from lightning_sd.metrics.style import (
    STYLE_WORDS,
    ClassMass,
    TokenClass,
    classify_tokens,
    sum_style_mass,
)
from lightning_sd.metrics.wrong_steps import Steps
from lightning_sd.text.steps import Span


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
    classes = classify_tokens(steps.pieces, words)
    return _measure(advantages, steps.tokens, steps.wrong, classes)


def measure_tokens(
    advantages: Tensor, steps: Tensor, wrong: Tensor, style: Tensor | None = None
) -> list[dict[str, Share]]:
    """Compute the measures of a batch of completions, given as tensors.

    Args:
        advantages: ``[batch, tokens]``, in nats.
        steps: ``[batch, tokens]``, the number of each token's reasoning step, from 1; 0 for tokens
            between steps, and -1 for padding.
        wrong: ``[batch, tokens]``, bool: the token is in a wrong step.
        style: ``[batch, tokens]``, bool: the token is style. Without it measures of style are left
            out.

    Returns:
        One dict per completion, as :func:`measure_rollout` gives it.

    Raises:
        ValueError: The shapes differ.

    Example:
        >>> import torch
        >>> steps = torch.tensor([[1, 1, 2, 2, -1]])
        >>> [found] = measure_tokens(torch.tensor([[0.0, 0.0, -3.0, 0.0, 0.0]]), steps, steps == 2)
        >>> found["negative_mass"]
        Share(total=1.0, number=1, chance=0.5)
    """
    given = [t for t in (advantages, steps, wrong, style) if t is not None]
    if len({tuple(tensor.shape) for tensor in given}) > 1 or advantages.ndim != 2:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in given)
        raise ValueError(
            f"advantages, steps, wrong and style: shapes {shapes}; give [batch, tokens]."
        )
    return [_measure_row(*(t[row][steps[row] >= 0] for t in given)) for row in range(len(steps))]


def _measure_row(
    advantages: Tensor, steps: Tensor, wrong: Tensor, style: Tensor | None = None
) -> dict[str, Share]:
    last = int(steps.max()) if len(steps) else 0
    places = [(steps == number).nonzero().flatten().tolist() for number in range(1, last + 1)]
    spans = [(place[0], place[-1] + 1) if place else (0, 0) for place in places]
    numbers = sorted(set(steps[wrong & (steps > 0)].tolist()))
    kinds: tuple[TokenClass, TokenClass] = ("other", "style")
    classes = None if style is None else [kinds[flag] for flag in style.tolist()]
    return _measure(advantages.tolist(), spans, numbers, classes)


def _measure(
    advantages: Sequence[float],
    steps: Sequence[Span],
    wrong: Sequence[int],
    classes: Sequence[TokenClass] | None,
) -> dict[str, Share]:
    if not advantages:
        return {}
    style = {} if classes is None else _measure_style(advantages, classes)
    return {**_measure_position(advantages, steps, wrong), **style}


def _measure_position(
    advantages: Sequence[float], steps: Sequence[Span], wrong: Sequence[int]
) -> dict[str, Share]:
    position = localize(advantages, steps, wrong)
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


def _measure_style(advantages: Sequence[float], classes: Sequence[TokenClass]) -> dict[str, Share]:
    masses = sum_style_mass(advantages, classes)
    total = masses.total
    shares = {
        "mean": Share(sum(advantages), total.tokens),
        "mean_abs": Share(total.mass, total.tokens),
    }
    if total.mass > 0:
        by_chance = total.mass * masses.style.tokens / total.tokens
        shares["style_share"] = Share(masses.style.mass, total.mass, by_chance)
    parts: dict[str, ClassMass] = {
        "style_abs": masses.style,
        "task_abs": masses.task,
        "math_abs": masses.math,
    }
    for name, part in parts.items():
        if part.tokens:
            shares[name] = Share(part.mass, part.tokens)
    return shares
