"""Time steps and their phases from outside, and print a run's result line."""

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
PHASE_PREFIX = "phase "
"""Begins the names of phases in a profile."""
SHARED = os.environ.get("STEP_TIME_SHARED") == "1"
"""Count processor seconds of one thread, because other work shares the machine."""
THREADS = 1 if SHARED else 2
READINGS: dict[str, Callable[[], float]] = {
    "elapsed": time.perf_counter,
    "processor": time.process_time,
    "system": lambda: resource.getrusage(resource.RUSAGE_SELF).ru_stime,
    "faults": lambda: float(resource.getrusage(resource.RUSAGE_SELF).ru_minflt),
}
"""What steps and phases can be measured in: seconds of three kinds, or minor page faults."""
read_clock = READINGS[os.environ.get("STEP_TIME_READING", "processor" if SHARED else "elapsed")]
PHASES = ("rollout", "teacher", "student", "loss", "backward", "optimizer")


class Machine(NamedTuple):
    """Elapsed time and used processor time, in seconds."""

    wall: float
    everyone: float
    """Processor time of all processes, on all cores."""
    own: float
    """Processor time of this process and its children."""

    @classmethod
    def now(cls) -> Machine:
        # user, nice, system, (idle, iowait,) irq, softirq, steal
        ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        everyone = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), everyone, sum(os.times()[:4]))

    def others(self, then: Machine) -> float:
        """Return the mean number of cores that other processes used since ``then``."""
        used = (self.everyone - then.everyone) - (self.own - then.own)
        return round(max(0.0, used) / max(0.01, self.wall - then.wall), 2)


def name_processor() -> str:
    """Return the maker, family and model of the processor and its widest vectors."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    facts = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    flags = facts["flags"].split()
    widest = next((name for name in ("amx_tile", "avx512f", "avx2") if name in flags), "none")
    return f"{facts['model name']} {facts['cpu family']}/{facts['model']}, {widest}"


class Clock:
    """Collect the seconds of each step and of its phases.

    A nested phase counts for the outer one. Time outside all phases is ``other``.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.phases: list[dict[str, float]] = []
        self.machine: list[Machine] = []
        self._now: dict[str, float] = defaultdict(float)
        self._inside = False
        self._last = read_clock()

    def start(self) -> None:
        """Begin the first step."""
        self.machine.append(Machine.now())
        self._last = read_clock()

    def step_done(self) -> None:
        """End a step and begin the next one; time between steps counts."""
        now = read_clock()
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
            function: Function to time.
            phase: Name of the phase, or a function without arguments that returns the name.
        """

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            # Imported here because `run` must not import torch.
            from torch.profiler import record_function

            name = phase() if callable(phase) else phase
            self._inside, begun = True, read_clock()
            try:
                with record_function(f"{PHASE_PREFIX}{name}"):
                    return function(*args, **kwargs)
            finally:
                self._inside = False
                self.add(name, read_clock() - begun)

        return timed

    def result(self, warm_up: int, tokens: int) -> dict[str, Any]:
        """Return the measurements after the warm-up steps.

        Args:
            warm_up: Number of warm-up steps, which are not measured.
            tokens: Completion tokens per step.
        """
        steps, phases = self.steps[warm_up:], self.phases[warm_up:]
        rounded = [{p: round(found.get(p, 0.0), 4) for p in PHASES} for found in phases]
        return {
            "steps": [round(s, 4) for s in steps],
            "warm_up": [round(s, 4) for s in self.steps[:warm_up]],
            "phases": rounded,
            "tokens_per_second": round(tokens * len(steps) / max(sum(steps), 1e-9), 2),
            "peak_mib": round(peak_mib(), 1),
            "others": self.machine[-1].others(self.machine[warm_up]),
        }


def by_grad_mode() -> str:
    """Name the current forward pass: only the student's has gradients enabled."""
    import torch

    return "student" if torch.is_grad_enabled() else "teacher"


def peak_mib() -> float:
    """Return the peak resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def set_threads() -> None:
    import torch

    torch.set_num_threads(THREADS)


BEGUN = Machine.now()


def emit(result: dict[str, Any]) -> None:
    """Print the result line that ``run`` parses.

    ``others`` is the number of cores that other processes used: during the measured steps if the
    result holds it, else since the start of this process.
    """
    print(PREFIX + json.dumps({"others": Machine.now().others(BEGUN), **result}), flush=True)
