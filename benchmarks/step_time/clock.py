"""Times of steps and of their phases, taken from outside, and the one line that a run prints."""

from __future__ import annotations

import functools
import json
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

PREFIX = "RESULT "
THREADS = 2
PHASES = ("rollout", "teacher", "student", "loss", "backward", "optimizer")


class Clock:
    """Collects the seconds of each step and of its phases.

    A phase inside a phase belongs to the outer one. What no phase claims is ``other``.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.phases: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)
        self._inside = False
        self._last = time.perf_counter()

    def start(self) -> None:
        """The first step begins."""
        self._last = time.perf_counter()

    def step_done(self) -> None:
        """A step ends, and the next one begins: whatever lies between them counts."""
        now = time.perf_counter()
        self.steps.append(now - self._last)
        self.phases.append(dict(self._now))
        self._now.clear()
        self._last = now

    def add(self, phase: str, seconds: float) -> None:
        self._now[phase] += seconds

    def wrap(self, function: Callable[..., Any], phase: Any) -> Callable[..., Any]:
        """Time a function.

        Args:
            function: Any.
            phase: Its name, or a function without arguments that names it at each call.
        """

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            name = phase() if callable(phase) else phase
            self._inside, begun = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.add(name, time.perf_counter() - begun)

        return timed

    def result(self, warm_up: int, tokens: int) -> dict[str, Any]:
        """What was measured after the warm-up steps.

        Args:
            warm_up: Steps that do not count.
            tokens: Completion tokens of a step.
        """
        steps, phases = self.steps[warm_up:], self.phases[warm_up:]
        rounded = [{p: round(found.get(p, 0.0), 4) for p in PHASES} for found in phases]
        return {
            "steps": [round(s, 4) for s in steps],
            "warm_up": [round(s, 4) for s in self.steps[:warm_up]],
            "phases": rounded,
            "tokens_per_second": round(tokens * len(steps) / sum(steps), 2),
            "peak_mib": round(peak_mib(), 1),
        }


def by_grad_mode() -> str:
    """Which forward pass this is: only the student's has gradients enabled."""
    import torch

    return "student" if torch.is_grad_enabled() else "teacher"


def peak_mib() -> float:
    """Largest resident memory of this process until now."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def set_threads() -> None:
    import torch

    torch.set_num_threads(THREADS)


def emit(result: dict[str, Any]) -> None:
    """Print the line that ``run`` looks for, with what is needed to judge a disturbed machine."""
    print(PREFIX + json.dumps({**result, "load": round(os.getloadavg()[0], 2)}), flush=True)
