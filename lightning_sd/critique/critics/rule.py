"""A critic for tasks that can check and repair each step exactly, without a model."""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from lightning_sd import __version__
from lightning_sd.critique.base import Critic, CritiqueRequest, make_failure
from lightning_sd.tasks.base import RepairTask, Task
from lightning_sd.tasks.judges.process import JudgeLimits, JudgeProcess
from lightning_sd.types import Critique, Question


class RuleCritic(Critic):
    """Repairs attempts with the task's own ``repair`` method.

    The critic's identity holds the package version and a hash of the module that defines the task,
    so critiques written under older rules are not reused. If a task imports its rules from another
    module, choose a new cache folder when those rules change.

    Args:
        seconds: Time limit per attempt. With a limit the rules run in a worker process, which is
            killed at the limit, also inside a regular expression or other compiled code. The
            attempt then has no critique, and the step goes on. None runs the rules in this
            process, without the cost of passing each attempt to another one.

    Raises:
        ValueError: ``seconds`` is not above 0.
    """

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and seconds <= 0:
            raise ValueError(f"seconds={seconds}: must be above 0, or null for no limit.")
        self.seconds = seconds
        self._task: RepairTask | None = None
        self._process: JudgeProcess | None = None

    def setup(self, task: Task) -> None:
        """Take the repair rules from the task.

        Raises:
            TypeError: The task has no ``repair`` method.
        """
        if not isinstance(task, RepairTask):
            raise TypeError(
                f"critic=RuleCritic: the task {type(task).__name__} has no method "
                "repair(question, attempt). Add one, or use LMCritic."
            )
        self._task = task
        if self.seconds is not None:
            limits = JudgeLimits(self.seconds, batch_seconds=math.inf)
            self._process = JudgeProcess(partial(_repair, task), limits)

    def identity(self) -> Mapping[str, Any]:
        """Return the task's class, the package version and a hash of the rules' source code."""
        kind = type(self._rules)
        return {
            "critic": "rule",
            "version": __version__,
            "task": f"{kind.__module__}.{kind.__qualname__}",
            "source": _hash_source(kind),
        }

    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Repair each attempt; see :meth:`Critic.critique`."""
        critiques = []
        for request in requests:
            start = time.perf_counter()
            critique = self._repair(request)
            critiques.append(replace(critique, seconds=time.perf_counter() - start))
        return critiques

    def _repair(self, request: CritiqueRequest) -> Critique:
        if self._process is None:
            return self._rules.repair(request.question, request.attempt)
        [outcome] = self._process.run([(request.question, request.attempt)])
        if outcome.status != "judged":
            return make_failure(f"{outcome.status}: {outcome.reason}")
        plain: dict[str, Any] = outcome.value
        # The worker's reply is JSON, which has no tuples.
        steps = {name: tuple(plain[name]) for name in ("copied", "changed", "added")}
        return Critique(**(plain | steps))

    @property
    def _rules(self) -> RepairTask:
        if self._task is None:
            raise RuntimeError("RuleCritic has no task yet: call setup(task) first.")
        return self._task


def _repair(task: RepairTask, question: Question, attempt: str) -> dict[str, Any]:
    """Repair an attempt in the worker process, and return plain data."""
    return asdict(task.repair(question, attempt))


def _hash_source(kind: type) -> str:
    try:
        source = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError):  # a class typed at a prompt has no source file
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]
