"""Metrics of advantages: means over rollouts, however they are spread over processes."""

from __future__ import annotations

import math
import random

import pytest
import torch

from lightning_sd.metrics.advantages import (
    ADVANTAGE_METRICS,
    MathAdvantage,
    NegativeMassAfterError,
    StyleShare,
    build_advantage_metrics,
)
from lightning_sd.metrics.measures import Share

MEASURES = [kind.measure for kind in ADVANTAGE_METRICS]


def rollouts(number):
    draws = random.Random(1)
    return [
        {
            name: Share(draws.random(), draws.randint(1, 4), draws.random())
            for name in MEASURES
            if draws.random() < 0.8
        }
        for _ in range(number)
    ]


@pytest.mark.parametrize("kind", ADVANTAGE_METRICS)
@pytest.mark.parametrize("chance", [False, True])
def test_mean_over_rollouts(kind, chance):
    if chance and not kind.has_chance:
        with pytest.raises(ValueError, match="chance"):
            kind(chance=True)
        return
    metric, given = kind(chance=chance), rollouts(7)
    for figures in given:
        metric.update(figures)
    shares = [figures[kind.measure] for figures in given if kind.measure in figures]
    total = sum(share.chance if chance else share.total for share in shares)
    assert metric.compute().item() == pytest.approx(total / sum(s.number for s in shares))


def test_sums_of_states_are_the_state_of_all():
    """What DDP does in compute: the states of the ranks are added."""
    given = rollouts(9)
    whole, parts = StyleShare(), [StyleShare(), StyleShare()]
    for index, figures in enumerate(given):
        whole.update(figures)
        parts[index < 2].update(figures)
    total = sum(part.total for part in parts)
    number = sum(part.number for part in parts)
    torch.testing.assert_close(whole.compute(), total / number)
    assert {f.__name__ for f in whole._reductions.values()} == {"dim_zero_sum"}


def _rank(rank, file):
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    metrics, whole = build_advantage_metrics(), build_advantage_metrics()
    given = rollouts(7)
    metrics.update({})
    for figures in given[:2] if rank else given[2:]:
        metrics.update(figures)
    for metric in whole.values():
        metric.sync_on_compute = False
    for figures in given:
        whole.update(figures)
    found, expected = metrics.compute(), whole.compute()
    torch.testing.assert_close(found, expected)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path / "meeting"),), nprocs=2)


def test_nothing_counted_gives_nan():
    metric = NegativeMassAfterError()
    metric.update({})
    assert math.isnan(metric.compute())


def test_the_collection_has_each_beside_chance():
    metrics = build_advantage_metrics("train/")
    metrics.update({})
    names = set(metrics.compute())
    assert {f"train/{name}" for name in MEASURES} <= names
    assert "train/step_auroc_chance" in names
    assert f"train/{MathAdvantage.measure}_chance" not in names
