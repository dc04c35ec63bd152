"""Where the teacher's signal falls, averaged over rollouts: localisation and style drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_sd.metrics.rollout_measures import Share


class AdvantageMetric(Metric):
    """Mean of one figure of :data:`.analysis.figures.FIGURES`.

    Its states are sums, so ranks of any size give the mean over all rollouts.

    Args:
        chance: Give what chance alone would give for the same rollouts (their advantages in random
            order) instead of the figure.

    Raises:
        ValueError: ``chance`` is asked of a figure that has no such comparison.

    Example:
        >>> metric = NegativeMassAfterError()
        >>> metric.update({"negative_mass": Share(0.5, 1, 0.25)})
        >>> metric.update({})  # a rollout without an error
        >>> metric.compute().item()
        0.5
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better: bool | None = True
    figure: ClassVar[str]
    comparable: ClassVar[bool] = True
    """Whether there is a comparison with chance."""
    total: Tensor
    number: Tensor

    def __init__(self, *, chance: bool = False) -> None:
        super().__init__()
        if chance and not self.comparable:
            raise ValueError(f"chance=True: {type(self).__name__} has no comparison with chance.")
        self.chance = chance
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, figures: Mapping[str, Share]) -> None:
        """Take in one rollout.

        Args:
            figures: As :func:`.analysis.figures.rollout_figures` gives them; a rollout for which
                this one is not defined does not count.
        """
        share = figures.get(self.figure)
        if share is None:
            return
        value = share.chance if self.chance else share.total
        assert value is not None
        self.total += value
        self.number += share.number

    def compute(self) -> Tensor:
        """The mean, a float64 scalar; nan before any rollout that counts."""
        return self.total / self.number


class NegativeMassAfterError(AdvantageMetric):
    """Share of the negative advantage at or after the first wrong step, mean over rollouts."""

    figure = "negative_mass"


class AbsoluteMassAfterError(AdvantageMetric):
    """Share of the absolute advantage at or after the first wrong step, mean over rollouts."""

    figure = "absolute_mass"


class PrefixSign(AdvantageMetric):
    """Share of tokens before the first wrong step with A >= 0, mean over rollouts."""

    figure = "prefix_sign"


class PrefixAdvantage(AdvantageMetric):
    """Mean advantage before the first wrong step in nats, mean over rollouts."""

    figure = "prefix_mean"


class StepAUROC(AdvantageMetric):
    """How well minus the mean advantage of a step tells wrong steps from right ones.

    Within each rollout that has both, then the mean over rollouts.
    """

    figure = "step_auroc"


class TokenAUROC(AdvantageMetric):
    """How well minus the advantage of a token tells tokens of wrong steps from those of right ones.

    Within each rollout that has both, then the mean over rollouts.
    """

    figure = "token_auroc"


class StyleShare(AdvantageMetric):
    """Share of the absolute advantage on style tokens, over all tokens of all rollouts."""

    figure = "style_share"
    higher_is_better = False


class StyleAdvantage(AdvantageMetric):
    """Mean absolute advantage of a style token in nats."""

    figure = "style_abs"
    higher_is_better = None
    comparable = False


class TaskAdvantage(AdvantageMetric):
    """Mean absolute advantage in nats of a token that is not style."""

    figure = "task_abs"
    higher_is_better = None
    comparable = False


class MathAdvantage(AdvantageMetric):
    """Mean absolute advantage in nats of a token of digits and operators."""

    figure = "math_abs"
    higher_is_better = None
    comparable = False


ADVANTAGE_METRICS: tuple[type[AdvantageMetric], ...] = (
    *(NegativeMassAfterError, AbsoluteMassAfterError, PrefixSign, PrefixAdvantage),
    *(StepAUROC, TokenAUROC, StyleShare, StyleAdvantage, TaskAdvantage, MathAdvantage),
)


def advantage_metrics(prefix: str = "") -> MetricCollection:
    """All of them as one collection, each beside its ``..._chance`` where there is one.

    Args:
        prefix: Put before each name, such as ``train/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {}
    for kind in ADVANTAGE_METRICS:
        metrics[kind.figure] = kind()
        if kind.comparable:
            metrics[f"{kind.figure}_chance"] = kind(chance=True)
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
