"""Measure the peak memory of each phase of a training step on a CPU.

The kernel's counter of resident memory is reset at the beginning of each phase. Freed memory must
go back to the system at once, so set ``MALLOC_MMAP_THRESHOLD_=65536`` before Python starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

PHASES = ("rollout", "teacher", "student", "optimizer")


class PeakWatch(Callback):
    """Records the largest resident memory of each phase, above that before the model was loaded."""

    def __init__(self) -> None:
        self.before = read_status("VmRSS")
        self.peaks: dict[str, float] = {}
        self.phase = "loading"
        self.ended = False
        reset_peak()

    def end(self) -> None:
        """Record no further phases."""
        self.ended = True

    def begin(self, phase: str) -> None:
        """End the current phase and begin another one."""
        if self.ended:
            return
        peak = read_status("VmHWM") - self.before
        self.peaks[self.phase] = max(peak, self.peaks.get(self.phase, 0.0))
        self.phase = phase
        reset_peak()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begin("between")
        self._wrap(pl_module, "gather_rollouts", "rollout")
        scorer = pl_module.rollout_scorer
        score_view = scorer._score_view

        def watch(*args: Any) -> Any:
            self.begin("teacher")
            result = score_view(*args)
            self.begin("student")
            return result

        object.__setattr__(scorer, "_score_view", watch)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        self.begin("between")

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.begin("optimizer")

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.begin("between")

    def _wrap(self, module: Any, name: str, phase: str) -> None:
        function = getattr(module, name)

        def watch(*args: Any) -> Any:
            self.begin(phase)
            result = function(*args)
            self.begin("between")
            return result

        setattr(module, name, watch)


def read_status(name: str) -> float:
    """Return a field of this process's status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def reset_peak() -> None:
    """Set the kernel's peak of resident memory to the current value."""
    Path("/proc/self/clear_refs").write_text("5")
