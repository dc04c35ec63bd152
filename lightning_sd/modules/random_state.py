"""Save and restore the state of all random number generators, for exact resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def get_random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch (CPU and ``device``), numpy and Python on this process.

    The values are plain, so that a checkpoint that holds them loads with ``weights_only=True``.
    """
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            *map(float, rest),
        ],
        "python": list(random.getstate()),
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what :func:`get_random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    kind, keys, position, has_gauss, cached = state["numpy"]
    words = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((kind, words, int(position), int(has_gauss), cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
