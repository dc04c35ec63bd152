"""Random numbers that depend on where a batch stands, and on nothing that came before it."""

from __future__ import annotations

import hashlib
import os

import torch


def batch_generator(
    seed: int | None, stage: str, index: int, rank: int, device: torch.device
) -> torch.Generator:
    """The generator for one batch of one rank.

    A resumed run draws what the unbroken one would have drawn, with no state in the checkpoint;
    ranks draw different numbers although ``seed_everything`` seeds them alike.

    Args:
        seed: None: that of ``seed_everything``, or 0.
        stage: ``train``, ``eval`` or ``predict``.
        index: Number of the batch in its stage.
        rank: Global rank.
        device: Where the generator works.

    Example:
        >>> cpu = torch.device("cpu")
        >>> seeds = {batch_generator(1, "train", 7, r, cpu).initial_seed() for r in (0, 1, 0)}
        >>> len(seeds)
        2
    """
    base = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
    digest = hashlib.sha256(f"{base}/{stage}/{index}/{rank}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))
