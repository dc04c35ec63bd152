"""A critic for tasks that can check and repair each step exactly, without a model."""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_sd import __version__
from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.tasks.base import RepairTask, Task
from lightning_sd.types import Critique


class RuleCritic(Critic):
    """Repairs attempts with the task's own ``repair`` method.

    The critic's identity holds the package version and a hash of the module that defines the task,
    so critiques written under older rules are not reused. If a task imports its rules from another
    module, choose a new cache folder when those rules change.
    """

    def __init__(self) -> None:
        self._task: RepairTask | None = None

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
            critique = self._rules.repair(request.question, request.attempt)
            critiques.append(replace(critique, seconds=time.perf_counter() - start))
        return critiques

    @property
    def _rules(self) -> RepairTask:
        if self._task is None:
            raise RuntimeError("RuleCritic has no task yet: call setup(task) first.")
        return self._task


def _hash_source(kind: type) -> str:
    try:
        source = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError):  # a class typed at a prompt has no source file
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]
