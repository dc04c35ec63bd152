"""Watch a logged value, and act when it leaves its limits."""

from __future__ import annotations

import math
import time
from collections import deque
from statistics import fmean
from typing import Any, ClassVar, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_sd.callbacks.guards.rollback import check_rollback, roll_back
from lightning_sd.types import RunStoppedError

Action = Literal["warn", "stop", "rollback"]


class CollapseError(RunStoppedError):
    """Training stopped because a guard saw a collapse."""


class CollapseGuard(Callback):
    """Act when the mean of a logged value over some optimizer steps leaves its limits.

    The values are means over all ranks, so all ranks act together.

    Args:
        metric: Name of the logged value, such as ``train/context_cut``.
        low: The mean must stay above it; None: no limit.
        high: The mean must stay below it; None: no limit.
        relative: The limits are multiples of the value's mean over its first ``window`` steps.
        window: Number of optimizer steps whose values are averaged.
        action: ``warn`` warns once per window. ``stop`` ends the run with
            :class:`CollapseError` and exit status 1. ``rollback`` loads weights, optimizer state
            and teacher of the newest undamaged checkpoint from before the window, and training
            goes on with the next batches; the step count and the schedule continue. It needs a
            ``ModelCheckpoint``.
        max_rollbacks: Number of rollbacks after which the guard stops the run instead. A missing
            checkpoint stops it as well.

    Raises:
        ValueError: ``low`` above ``high``, both None, a ``window`` below 1, an unknown action, or
            negative ``max_rollbacks``.
    """

    floor: ClassVar[float] = 0.0
    """Smallest value that relative limits are multiples of; a start below it has no ``low``."""
    meaning: ClassVar[str] = ""
    """What it means if the value leaves its limits, for the message."""
    remedy: ClassVar[str] = ""

    def __init__(
        self,
        metric: str,
        low: float | None = None,
        high: float | None = None,
        relative: bool = False,
        *,
        window: int = 10,
        action: Action = "warn",
        max_rollbacks: int = 2,
    ) -> None:
        name = type(self).__name__
        if low is None and high is None:
            raise ValueError(f"{name}: low and high are both null, so it guards nothing; set one.")
        if low is not None and high is not None and low > high:
            raise ValueError(f"{name}: low={low} is above high={high}.")
        if action not in ("warn", "stop", "rollback"):
            raise ValueError(f"{name}: action={action!r}: choose warn, stop or rollback.")
        for argument, value, least in (("window", window, 1), ("max_rollbacks", max_rollbacks, 0)):
            if value < least:
                raise ValueError(f"{name}: {argument}={value}: must be at least {least}.")
        self.metric, self.low, self.high, self.relative = metric, low, high, relative
        self.window, self.max_rollbacks = window, max_rollbacks
        self.action: Action = action
        self.start: float | None = None
        self.rollbacks = 0
        self._began = math.inf
        self._step = 0
        self._recent: deque[tuple[int, float]] = deque(maxlen=window)

    @property
    def state_key(self) -> str:
        """Tell two guards of one class with different values apart."""
        return f"{type(self).__qualname__}[{self.metric}]"

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on guarding."""
        names = ("start", "rollbacks", "_began")
        return {**{name: getattr(self, name) for name in names}, "recent": list(self._recent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        state = dict(state_dict)
        self._recent = deque(map(tuple, state.pop("recent")), maxlen=self.window)
        vars(self).update(state)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a rollback that could not work."""
        if stage == "fit" and self.action == "rollback":
            check_rollback(trainer, type(self).__name__)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember when and where the run started."""
        self._step = trainer.global_step
        self._began = min(self._began, time.time())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the value after the last micro-batch of an optimizer step."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        value = self.measure(trainer, pl_module, outputs)
        if value is None or not math.isfinite(value):
            return
        self._recent.append((self._step, value))
        if len(self._recent) < self.window:
            return
        mean = fmean(value for _, value in self._recent)
        if self.start is None:
            self.start = mean
        fault = self.find_fault(mean)
        if trainer.strategy.reduce_boolean_decision(fault is not None, all=False):
            self._act(trainer, pl_module, fault or "another rank saw a value beyond its limits")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say if there were too few values to guard anything."""
        if self.start is None:
            rank_zero_warn(
                f"{type(self).__name__} guarded nothing: fewer than window={self.window} values of "
                f"{self.metric} were logged."
            )

    def measure(self, trainer: Trainer, pl_module: LightningModule, outputs: Any) -> float | None:
        """Return the value of this optimizer step, equal on all ranks; None if there is none."""
        value = trainer.callback_metrics.get(self.metric)
        return None if value is None else float(value)

    def find_fault(self, mean: float) -> str | None:
        """Describe how a mean leaves the limits; None if it does not."""
        start = self.start or 0.0
        unit = max(start, self.floor) if self.relative else 1.0
        has_low = not self.relative or start >= self.floor
        limit = None
        if self.high is not None and mean >= self.high * unit:
            limit = f"at least its limit of {self.high * unit:.3g}"
        elif self.low is not None and mean <= self.low * unit and has_low:
            limit = f"at most its limit of {self.low * unit:.3g}"
        if limit is None:
            return None
        first = f"; it was {start:.3g} at the start" if self.relative else ""
        return f"{self.metric} is {mean:.3g}, {limit}{first}"

    def _act(self, trainer: Trainer, pl_module: LightningModule, fault: str) -> None:
        first, last = self._recent[0][0], self._recent[-1][0]
        self._recent.clear()
        name = type(self).__name__
        message = f"{name}: over steps {first} to {last}, {fault}. {self.meaning} {self.remedy}"
        if self.action == "warn":
            rank_zero_warn(message)
            return
        if self.action == "stop":
            raise CollapseError(f"{message} With {name}(action=warn) the run would go on.")
        if self.rollbacks >= self.max_rollbacks:
            raise CollapseError(f"{message} There were {self.rollbacks} rollback(s) before.")
        path = roll_back(trainer, pl_module, first, self._began)
        if path is None:
            raise CollapseError(
                f"{message} No checkpoint of this run from before step {first} is left to roll "
                "back to: let ModelCheckpoint save more often, or keep more "
                "(save_top_k=3, monitor=step, mode=max)."
            )
        self.rollbacks += 1
        rank_zero_warn(f"{message} Rolled back to {path}; training goes on from its weights.")
