"""Metrics of the teacher's advantages, averaged over rollouts: error position and style drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_sd.metrics.measures import Share, measure_tokens
from lightning_sd.metrics.ratio import RatioMetric


class AdvantageMetric(RatioMetric):
    """Mean of one measure of :data:`.measures.MEASURES` over rollouts.

    Args:
        chance: Average the expected value under a random order of each rollout's advantages instead
            of the measure.

    Raises:
        ValueError: ``chance`` is set for a measure without such a comparison.

    Example:
        >>> metric = NegativeMassAfterError()
        >>> metric.update({"negative_mass": Share(0.5, 1, 0.25)})
        >>> metric.update({})  # a rollout without a wrong step
        >>> metric.compute().item()
        0.5

        The same from tensors, ``[batch, tokens]``:

        >>> import torch
        >>> metric = NegativeMassAfterError()
        >>> steps = torch.tensor([[1, 1, 2, 2]])
        >>> metric.update(torch.tensor([[-1.0, 0.0, -1.0, 0.0]]), steps, wrong=steps == 2)
        >>> metric.compute().item()
        0.5
    """

    measure: ClassVar[str]
    """Key in ``MEASURES``."""
    has_chance: ClassVar[bool] = True
    """Whether the measure has an expected value under a random order."""

    def __init__(self, *, chance: bool = False) -> None:
        super().__init__()
        if chance and not self.has_chance:
            raise ValueError(f"chance=True: {type(self).__name__} has no comparison with chance.")
        self.chance = chance

    def update(
        self,
        measures: Mapping[str, Share] | Tensor,
        steps: Tensor | None = None,
        wrong: Tensor | None = None,
        style: Tensor | None = None,
    ) -> None:
        """Add one rollout by its measures, or a batch by its tensors.

        Rollouts that do not define this measure do not count.

        Args:
            measures: Measures of one rollout, from :func:`.measures.measure_rollout`; or the
                advantages of a batch, ``[batch, tokens]``, with the other arguments.
            steps: See :func:`.measures.measure_tokens`.
            wrong: See there.
            style: See there.
        """
        if not isinstance(measures, Tensor):
            self._add(measures)
        elif steps is None or wrong is None:
            raise ValueError("steps or wrong is missing: advantages as a tensor need both.")
        else:
            for row in measure_tokens(measures, steps, wrong, style):
                self._add(row)

    def _add(self, measures: Mapping[str, Share]) -> None:
        share = measures.get(self.measure)
        value = share and (share.chance if self.chance else share.total)
        if share is not None and value is not None:
            self.total += value
            self.number += share.number


class NegativeMassAfterError(AdvantageMetric):
    """Share of the negative advantage at or after the first wrong step, mean over rollouts."""

    measure = "negative_mass"


class AbsoluteMassAfterError(AdvantageMetric):
    """Share of the absolute advantage at or after the first wrong step, mean over rollouts."""

    measure = "absolute_mass"


class PrefixSign(AdvantageMetric):
    """Share of tokens before the first wrong step with A >= 0, mean over rollouts."""

    measure = "prefix_sign"


class PrefixAdvantage(AdvantageMetric):
    """Mean advantage before the first wrong step in nats, mean over rollouts."""

    measure = "prefix_mean"


class StepAUROC(AdvantageMetric):
    """AUROC of minus the mean advantage of a step as a detector of wrong steps.

    Computed within each rollout that has wrong and correct steps, then averaged over rollouts.
    """

    measure = "step_auroc"


class TokenAUROC(AdvantageMetric):
    """AUROC of minus the advantage of a token as a detector of tokens of wrong steps.

    Computed within each rollout that has wrong and correct steps, then averaged over rollouts.
    """

    measure = "token_auroc"


class StyleShare(AdvantageMetric):
    """Share of the absolute advantage on style tokens, over all rollouts."""

    measure = "style_share"
    higher_is_better = False


class StyleAdvantage(AdvantageMetric):
    """Mean absolute advantage of a style token in nats."""

    measure = "style_abs"
    higher_is_better = None
    has_chance = False


class TaskAdvantage(AdvantageMetric):
    """Mean absolute advantage in nats of a token that is not style."""

    measure = "task_abs"
    higher_is_better = None
    has_chance = False


class MathAdvantage(AdvantageMetric):
    """Mean absolute advantage in nats of a token of digits and operators."""

    measure = "math_abs"
    higher_is_better = None
    has_chance = False


ADVANTAGE_METRICS: tuple[type[AdvantageMetric], ...] = (
    *(NegativeMassAfterError, AbsoluteMassAfterError, PrefixSign, PrefixAdvantage),
    *(StepAUROC, TokenAUROC, StyleShare, StyleAdvantage, TaskAdvantage, MathAdvantage),
)


def build_advantage_metrics(prefix: str = "") -> MetricCollection:
    """Build all metrics of advantages as one collection.

    Each metric with a comparison has a second entry with the suffix ``_chance``.

    Args:
        prefix: Put before each name, such as ``train/``.
    """
    metrics: dict[str, Metric | MetricCollection] = {}
    for kind in ADVANTAGE_METRICS:
        metrics[kind.measure] = kind()
        if kind.has_chance:
            metrics[f"{kind.measure}_chance"] = kind(chance=True)
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
