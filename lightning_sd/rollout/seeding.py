"""Seed random numbers by the position of a batch, independent of all earlier batches."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import torch


def make_batch_generator(
    seed: int | None, stage: str, index: int, rank: int, device: torch.device
) -> torch.Generator:
    """Make the random generator of one batch on one rank.

    A resumed run draws the same numbers as an uninterrupted one, without state in the checkpoint.
    Ranks draw different numbers, although ``seed_everything`` gives them the same seed.

    Args:
        seed: The run's seed; None uses that of ``seed_everything``, or 0.
        stage: ``train``, ``eval`` or ``predict``.
        index: Index of the batch in its stage.
        rank: Global rank.
        device: Device of the generator.

    Example:
        >>> cpu = torch.device("cpu")
        >>> seeds = {make_batch_generator(1, "train", 7, r, cpu).initial_seed() for r in (0, 1, 0)}
        >>> len(seeds)
        2
    """
    base = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
    digest = hashlib.sha256(f"{base}/{stage}/{index}/{rank}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def draw_requests(
    prompts: Sequence[object], samples: int, generator: torch.Generator
) -> list[tuple[int, int]]:
    """Give each completion a seed of its own, for engines that draw by themselves.

    Args:
        prompts: The prompts of a batch.
        samples: Completions per prompt.
        generator: The batch's generator.

    Returns:
        The prompt's index and the seed of each completion, in the order of :meth:`Sampler.sample`.
    """
    asked = [i for i in range(len(prompts)) for _ in range(samples)]
    seeds = torch.randint(2**62, (len(asked),), generator=generator, device=generator.device)
    return list(zip(asked, seeds.tolist(), strict=True))
