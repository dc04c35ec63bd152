"""Times of steps and of their phases, taken from outside, and the one line that a run prints."""

from __future__ import annotations

import functools
import json
import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "RESULT "
THREADS = 2
PHASES = ("rollout", "teacher", "student", "loss", "backward", "optimizer")


class Machine(NamedTuple):
    """How much computing there has been, in seconds."""

    wall: float
    everyone: float
    """Of all processes, on all cores."""
    own: float
    """Of this process and its children."""

    @classmethod
    def now(cls) -> Machine:
        # user, nice, system, (idle, iowait,) irq, softirq, steal
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        everyone = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), everyone, sum(os.times()[:4]))

    def others(self, then: Machine) -> float:
        """Cores that other processes have used since ``then``, on average."""
        used = (self.everyone - then.everyone) - (self.own - then.own)
        return round(max(0.0, used) / max(0.01, self.wall - then.wall), 2)


class Clock:
    """Collects the seconds of each step and of its phases.

    A phase inside a phase belongs to the outer one. What no phase claims is ``other``.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.phases: list[dict[str, float]] = []
        self.machine: list[Machine] = []
        self._now: dict[str, float] = defaultdict(float)
        self._inside = False
        self._last = time.perf_counter()

    def start(self) -> None:
        """The first step begins."""
        self.machine.append(Machine.now())
        self._last = time.perf_counter()

    def step_done(self) -> None:
        """A step ends, and the next one begins: whatever lies between them counts."""
        now = time.perf_counter()
        self.steps.append(now - self._last)
        self.phases.append(dict(self._now))
        self.machine.append(Machine.now())
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
            "others": self.machine[-1].others(self.machine[warm_up]),
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


BEGUN = Machine.now()


def emit(result: dict[str, Any]) -> None:
    """Print the line that ``run`` looks for.

    With it goes by how much other processes disturbed this one: while counted steps ran if the
    result says so itself, else from its beginning.
    """
    print(PREFIX + json.dumps({"others": Machine.now().others(BEGUN), **result}), flush=True)
