from __future__ import annotations

import itertools

import torch

from lightning_sd.rollout.seeding import make_batch_generator

CPU = torch.device("cpu")


def test_seed_stage_index_and_rank_each_change_the_draws() -> None:
    places = list(itertools.product((0, 1), ("train", "train/1", "eval", "write"), (0, 1), (0, 1)))
    seeds = {make_batch_generator(*place, CPU).initial_seed() for place in places}
    assert len(seeds) == len(places)


def test_the_same_place_gives_the_same_draws() -> None:
    one, other = (make_batch_generator(3, "train", 7, 1, CPU) for _ in range(2))
    assert torch.equal(torch.rand(5, generator=one), torch.rand(5, generator=other))
