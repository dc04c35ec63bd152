"""The critic of tasks whose steps can be checked exactly: no model, no doubt."""

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
from lightning_sd.tasks.base import StepChecked, Task
from lightning_sd.types import Critique


class RuleCritic(Critic):
    """Repairs attempts by the task's own rules (its ``repair`` method).

    Its identity holds the package's version and a hash of the module that defines the task, so that
    a changed rule does not meet old critiques. Rules that a task keeps in another module of its own
    need a new cache folder when they change.
    """

    def __init__(self) -> None:
        self._task: StepChecked | None = None

    def setup(self, task: Task) -> None:
        """Take the task's rules.

        Raises:
            TypeError: The task has none.
        """
        if not isinstance(task, StepChecked):
            raise TypeError(
                f"RuleCritic needs a task that can repair attempts, but {type(task).__name__} has "
                "no method repair(question, attempt). Give it one, or use LMCritic."
            )
        self._task = task

    def identity(self) -> Mapping[str, Any]:
        """The task's class, the package's version, and a hash of the rules' source."""
        kind = type(self._rules)
        return {
            "critic": "rule",
            "version": __version__,
            "task": f"{kind.__module__}.{kind.__qualname__}",
            "source": _source_hash(kind),
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
    def _rules(self) -> StepChecked:
        if self._task is None:
            raise RuntimeError("RuleCritic was not set up: call setup(task) first.")
        return self._task


def _source_hash(kind: type) -> str:
    try:
        source = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError):  # typed in at a prompt
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:16]
