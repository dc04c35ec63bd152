"""Threads that work while the main thread trains or samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch


def start_worker(name: str) -> ThreadPoolExecutor:
    """Return a pool of one thread that uses the caller's GPU.

    Args:
        name: Name of the thread.
    """
    # Each thread has its own current GPU; a new thread would use the first one.
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
    return ThreadPoolExecutor(1, name, _use_device, (device,))


def _use_device(device: int | None) -> None:
    if device is not None:
        torch.cuda.set_device(device)
