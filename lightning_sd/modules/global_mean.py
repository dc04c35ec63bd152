"""Exact means over an optimizer step, for any split into micro-batches and ranks.

Lightning divides each micro-batch's loss by ``accumulate_grad_batches``, and DDP averages gradients
over ranks. The result is a mean of means, in which a token of a short micro-batch counts more than
a token of a long one. Modules that inherit :class:`GlobalMean` return *sums* from
``training_step`` and count the summed items. Just before the optimizer step (after unscaling,
before clipping) the gradients are divided by the global count. ``on_before_optimizer_step`` of
callbacks runs earlier and sees the sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer


class GlobalMean(LightningModule):
    """A LightningModule whose loss is a sum over a counted number of tokens or sequences."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def on_train_start(self) -> None:
        """Drop means that were added outside of training, such as in predict."""
        self._sums, self._counts = {}, {}

    def log_mean(self, name: str, total: Tensor | float, number: float) -> None:
        """Add to the mean that is logged as ``train/name`` at the next optimizer step.

        The mean named ``loss`` also normalizes the gradients.

        Args:
            name: Name of the mean.
            total: Sum over ``number`` items, on this rank and micro-batch.
            number: Number of items.
        """
        value = torch.as_tensor(total, dtype=torch.float64, device="cpu").detach()
        self._sums[name] = self._sums.get(name, torch.zeros((), dtype=torch.float64)) + value
        self._counts[name] = self._counts.get(name, torch.zeros((), dtype=torch.float64)) + number

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the accumulated gradient of the sum into the gradient of the global mean."""
        means, loss_count = self._reduce_over_ranks()
        self._sums, self._counts = {}, {}
        if loss_count > 0:
            factor = self.trainer.accumulate_grad_batches * self.trainer.world_size / loss_count
            grads = [
                p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None
            ]
            if grads:
                torch._foreach_mul_(grads, factor)
        self.publish_means(means)

    def publish_means(self, means: Mapping[str, float]) -> None:
        """Log the means of one optimizer step; override it to change the progress bar."""
        for name, value in means.items():
            self.log(f"train/{name}", value, prog_bar=name == "loss", rank_zero_only=False)

    def _reduce_over_ranks(self) -> tuple[dict[str, float], float]:
        names = sorted(self._sums)
        both = (
            torch.stack(
                [
                    torch.stack([self._sums[n] for n in names]),
                    torch.stack([self._counts[n] for n in names]),
                ]
            )
            if names
            else torch.zeros(2, 0, dtype=torch.float64)
        )
        if self.trainer.world_size > 1:
            # Ranks may have logged different names, so they agree on the names first.
            gathered: list[list[str]] = [[] for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(gathered, names)
            union = sorted({name for rank in gathered for name in rank})
            local = torch.zeros(2, len(union), dtype=torch.float64)
            for column, name in enumerate(names):
                local[:, union.index(name)] = both[:, column]
            on_device = local.to(self.device, torch.float64)
            torch.distributed.all_reduce(on_device)
            names, both = union, on_device.cpu()
        means = {
            name: (both[0, i] / both[1, i]).item() for i, name in enumerate(names) if both[1, i] > 0
        }
        return means, both[1, names.index("loss")].item() if "loss" in names else 0.0
