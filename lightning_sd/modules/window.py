"""The micro-batches since the last optimizer step, and what a checkpoint holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightning_sd.models.trainable import list_trainable
from lightning_sd.modules.logged_row import get_unlogged_row, log_row
from lightning_sd.modules.random_state import get_random_state, set_random_state

if TYPE_CHECKING:
    from lightning_sd.modules.global_mean import GlobalMean


SUM = "sum:"
"""Marks names of values that are summed over micro-batches and ranks, not averaged."""


class Window:
    """Sums and counts of the micro-batches since the last optimizer step, by name."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor | float, number: float) -> None:
        """Add a sum over ``number`` items."""
        zero = torch.zeros((), dtype=torch.float64)
        value = torch.as_tensor(total, dtype=torch.float64, device="cpu").detach()
        self.sums[name] = self.sums.get(name, zero) + value
        self.counts[name] = self.counts.get(name, zero) + number

    def add_sum(self, name: str, value: float) -> None:
        """Add to a value that is summed."""
        self.add(SUM + name, value, 1)

    def reduce(self, world_size: int, device: torch.device) -> tuple[dict[str, float], float]:
        """Return means and sums over all ranks by name, and the number of items of the loss."""
        names, both = sorted(self.sums), torch.zeros(2, len(self.sums), dtype=torch.float64)
        for column, name in enumerate(names):
            both[0, column], both[1, column] = self.sums[name], self.counts[name]
        if world_size > 1:
            names, both = _sum_over_ranks(names, both, world_size, device)
        means = {
            name.removeprefix(SUM): (
                both[0, i] / (1 if name.startswith(SUM) else both[1, i])
            ).item()
            for i, name in enumerate(names)
            if both[1, i] > 0
        }
        return means, both[1, names.index("loss")].item() if "loss" in names else 0.0


def save_process(module: GlobalMean, window: Window) -> dict[str, Any]:
    """Return what a resumed run needs beside weights and optimizer; called on all ranks.

    Args:
        module: The module in training.
        window: Its unfinished window; empty after an optimizer step.

    Returns:
        Plain values: the random state, sums, counts and memory limits per rank, the count of
        skipped steps, the values that are about to be logged, and in an unfinished window the
        accumulated gradients. With several ranks these are the mean over the ranks, so a resumed
        run then equals the unbroken one up to rounding.
    """
    own = {
        "random": get_random_state(module.device),
        "sums": dict(window.sums),
        "counts": dict(window.counts),
        "memory_limits": dict(vars(module.memory_limits)),
    }
    ranks = [own]
    world_size = module.trainer.world_size
    if world_size > 1:
        ranks = [own] * world_size
        torch.distributed.all_gather_object(ranks, own)
    guard = module.step_guard
    return {
        "ranks": ranks,
        "skipped_steps": [guard.skipped, guard.in_a_row],
        "row": get_unlogged_row(module.trainer),
        "gradients": _copy_gradients(module, world_size) if window.sums else {},
    }


def restore_process(module: GlobalMean, saved: Mapping[str, Any]) -> Window:
    """Restore what :func:`save_process` returned, once the model is on its device.

    Returns:
        The unfinished window. With another number of processes than that of the saved run it is
        empty, and the random state stays as it is, after a warning.
    """
    ranks, world_size = saved["ranks"], module.trainer.world_size
    module.step_guard.skipped, module.step_guard.in_a_row = saved["skipped_steps"]
    log_row(module.trainer, saved["row"])
    if len(ranks) != world_size:
        rank_zero_warn(
            f"The checkpoint was written by {len(ranks)} process(es), and this run has "
            f"{world_size}: random numbers differ from those of an unbroken run, and micro-batches "
            "of an unfinished accumulation window are lost."
        )
        return Window()
    own = ranks[module.global_rank]
    parameters = dict(list_trainable(module))
    for name, gradient in saved["gradients"].items():
        parameter = parameters[name]
        parameter.grad = gradient.to(parameter.device, parameter.dtype, copy=True)
    window = Window()
    if saved["gradients"]:
        window.sums, window.counts = dict(own["sums"]), dict(own["counts"])
    for name, limit in own["memory_limits"].items():
        setattr(module.memory_limits, name, limit)
    set_random_state(own["random"], module.device)
    return window


def _copy_gradients(module: GlobalMean, world_size: int) -> dict[str, Tensor]:
    gradients = {}
    parameters = list_trainable(module)
    if any(isinstance(parameter, DTensor) for _, parameter in parameters):
        rank_zero_warn(
            "A checkpoint within an accumulation window does not hold the gradients of a sharded "
            "model: a run resumed from it steps on the rest of that window."
        )
        return {}
    for name, parameter in parameters:
        if parameter.grad is None and world_size == 1:
            continue
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        gradient = gradient.detach().clone()
        if world_size > 1:
            torch.distributed.all_reduce(gradient)
            gradient /= world_size
        gradients[name] = gradient.cpu()
    return gradients


def _sum_over_ranks(
    names: list[str], both: Tensor, world_size: int, device: torch.device
) -> tuple[list[str], Tensor]:
    # Ranks may have logged different names, so they agree on the names first.
    gathered: list[list[str]] = [[] for _ in range(world_size)]
    torch.distributed.all_gather_object(gathered, names)
    union = sorted({name for rank in gathered for name in rank})
    local = torch.zeros(2, len(union), dtype=torch.float64)
    for column, name in enumerate(names):
        local[:, union.index(name)] = both[:, column]
    on_device = local.to(device, torch.float64)
    torch.distributed.all_reduce(on_device)
    return union, on_device.cpu()
