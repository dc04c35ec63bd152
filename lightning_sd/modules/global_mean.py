"""Exact means over an optimizer step, for any split into micro-batches and ranks.

Lightning divides each micro-batch's loss by ``accumulate_grad_batches``, and DDP averages gradients
over ranks. The result is a mean of means, in which a token of a short micro-batch counts more than
a token of a long one. Modules that inherit :class:`GlobalMean` return *sums* from
``training_step`` and count the summed items. Just before the optimizer step (after unscaling,
before clipping) the gradients are divided by the global count. ``on_before_optimizer_step`` of
callbacks runs earlier and sees the sum.

A step with a loss or gradient that is not finite is skipped. Checkpoints hold what an unfinished
window of micro-batches has accumulated, and the state of the random numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_sd.modules.bad_steps import Describe, write_bad_step
from lightning_sd.modules.guards import StepGuard, compute_gradient_norm
from lightning_sd.modules.logged_row import forget_values
from lightning_sd.modules.memory import MemoryLimits
from lightning_sd.modules.window import Window, restore_process, save_process

BAD_GRADIENT = "non_finite_gradient"
"""Name under which the ranks tell each other of a gradient that is not finite."""


class GlobalMean(LightningModule, ABC):
    """A LightningModule whose loss is a sum over a counted number of tokens or sequences.

    Args:
        max_bad_steps: Number of optimizer steps in a row with a loss or gradient that is not finite
            at which training stops. Each such step is skipped: it changes no weight and no state of
            the optimizer. It counts as a step for ``max_steps`` and the learning-rate schedule.

    Raises:
        ValueError: ``max_bad_steps`` below 1.
    """

    def __init__(self, max_bad_steps: int = 3) -> None:
        super().__init__()
        self.max_bad_steps = max_bad_steps
        self.step_guard = StepGuard(max_bad_steps)
        self.step_skipped = False
        self.memory_limits = MemoryLimits()
        self._window = Window()
        self._batches: list[Describe] = []
        self._published: set[str] = set()
        self._restored: Mapping[str, Any] | None = None

    @abstractmethod
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the sum of a micro-batch's loss, after ``log_mean("loss", sum, number)``."""

    def on_train_start(self) -> None:
        """Drop means added outside of training, and continue where a checkpoint stopped."""
        self._window, self._batches = Window(), []
        if self._restored is not None:
            self._window = restore_process(self, self._restored)
            self._restored = None

    def log_mean(self, name: str, total: Tensor | float, number: float) -> None:
        """Add to the mean that is logged as ``train/name`` at the next optimizer step.

        The mean named ``loss`` also normalizes the gradients.

        Args:
            name: Name of the mean.
            total: Sum over ``number`` items, on this rank and micro-batch.
            number: Number of items.
        """
        self._window.add(name, total, number)

    def log_sum(self, name: str, value: float) -> None:
        """Add to the sum that is logged as ``train/name`` at the next optimizer step.

        Args:
            name: Name of the sum, such as a count.
            value: The part of this rank and micro-batch.
        """
        self._window.add_sum(name, value)

    def remember_batch(self, describe: Describe) -> None:
        """Keep a micro-batch until the optimizer step, to write it to a file if that is skipped."""
        self._batches.append(describe)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients of a micro-batch.

        Raises:
            torch.OutOfMemoryError: Memory ran out. In a single process the scorer handles this for
                the model's own pass; see :mod:`~lightning_sd.modules.safe_scorer`.
        """
        try:
            super().backward(loss, *args, **kwargs)
        except torch.OutOfMemoryError as error:
            if self.trainer.world_size == 1:
                raise
            raise torch.OutOfMemoryError(
                f"Out of memory in the backward pass of rank {self.global_rank}: with several "
                "processes it is not repeated in parts. Lower batch_size or samples and raise "
                f"trainer.accumulate_grad_batches. ({error})"
            ) from error

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn the accumulated gradient of the sum into the gradient of the global mean.

        Raises:
            FloatingPointError: The loss or the gradient was not finite ``max_bad_steps`` times in a
                row.
        """
        parameters = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        grads = [p.grad for p in parameters if p.grad is not None]
        self.log_mean(BAD_GRADIENT, float(not math.isfinite(compute_gradient_norm(grads))), 1)
        means, loss_count = self._window.reduce(self.trainer.world_size, self.device)
        batches, self._window, self._batches = self._batches, Window(), []
        loss, bad_gradient = means.get("loss", 0.0), means.pop(BAD_GRADIENT) > 0
        if not math.isfinite(loss) or bad_gradient:
            self._skip_step(parameters, loss, bad_gradient, batches)
        else:
            self.step_skipped = False
            self.step_guard.count(skipped=False, counted=False)
            if loss_count > 0 and grads:
                factor = self.trainer.accumulate_grad_batches * self.trainer.world_size / loss_count
                torch._foreach_mul_(grads, factor)
        self.publish_means({**means, "skipped_steps": self.step_guard.skipped})

    def publish_means(self, means: Mapping[str, float]) -> None:
        """Log the means of one optimizer step; override it to change the progress bar."""
        forget_values(self.trainer, [f"train/{name}" for name in self._published - means.keys()])
        self._published = set(means)
        for name, value in means.items():
            self.log(f"train/{name}", value, prog_bar=name == "loss", rank_zero_only=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the unfinished window, the random state, skipped steps, and memory limits."""
        checkpoint["process"] = save_process(self, self._window)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Keep what was saved until training starts."""
        fits = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        self._restored = checkpoint.get("process") if fits else None

    def _skip_step(
        self, parameters: list[Any], loss: float, bad_gradient: bool, batches: list[Describe]
    ) -> None:
        """Leave weights and optimizer as they are; stop after too many skipped steps in a row."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        # A gradient scaler looks for its scale by overflowing. It skips these steps itself.
        searching = scaler is not None and math.isfinite(loss) and scaler.get_scale() > 1
        self.step_skipped = True
        self.step_guard.count(skipped=True, counted=not searching)
        if searching:
            return
        for parameter in parameters:
            parameter.grad = None  # optimizers pass over parameters without a gradient
        gradient = "not finite" if bad_gradient else "finite"
        reason = f"loss {loss}, gradient {gradient}"
        facts = {"step": self.trainer.global_step, "rank": self.global_rank, "reason": reason}
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        path = write_bad_step(folder, facts, batches)
        skipped = f"Optimizer step {facts['step']} was skipped ({reason}); its batch is in {path}."
        if not self.step_guard.exhausted:
            rank_zero_warn(skipped)
            return
        raise FloatingPointError(
            f"{skipped} It was number {self.step_guard.in_a_row} in a row, and max_bad_steps="
            f"{self.max_bad_steps}. The weights are those before the first of them. Lower the "
            "learning rate, set trainer.gradient_clip_val, or raise max_bad_steps."
        )
