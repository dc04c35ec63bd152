"""Run mutants in forks of a process that has imported the package and collected all tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from benchmarks.mutations.draw import Drawn
from benchmarks.mutations.fork import (
    KILLED,
    NOT_FOUND,
    SURVIVED,
    UNPATCHED,
    Result,
    Tell,
    run_fork,
)
from benchmarks.mutations.imported import OPTIONS
from benchmarks.mutations.patch import index_functions, patch


class Session:
    """Pytest plugin that calls ``work`` in place of running the collected tests."""

    def __init__(self, work: Callable[[Session], None]) -> None:
        self.work = work
        self.items: dict[str, pytest.Item] = {}
        self.failed = ""

    def start(self, files: Sequence[str]) -> None:
        """Collect the tests of some files, and call ``work``."""
        pytest.main([*OPTIONS, *files], plugins=[self])

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.functions = index_functions()
        gc.collect()
        gc.freeze()
        self.work(self)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def run(self, drawn: Drawn, tests: Sequence[str], seconds: float) -> Result:
        """Run tests in a fork with a mutant, in order, until one fails."""
        items = [self.items[test] for test in tests if test in self.items]

        def action(tell: Tell) -> int:
            functions = self.functions[str(drawn.path)]
            if not patch(functions, drawn.path, drawn.mutant.build()):
                return UNPATCHED
            for item, following in pairwise([*items, None]):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
                if self.failed:
                    tell(self.failed)
                    return KILLED
            return SURVIVED if items else NOT_FOUND

        return run_fork(action, seconds)
