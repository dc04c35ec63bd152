"""Record which tests execute which lines of the package's heart; needs ``pip install coverage``.

    python -m benchmarks.mutations.covering lightning_sd tests/functional tests/scoring

The result is added to ``out/mutation_coverage.json.gz``. Slow tests and the lines that a test's
child processes execute are not recorded.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.grid import ROOT
from benchmarks.mutations.heart import list_files

MAP = ROOT / "out" / "mutation_coverage.json.gz"


class Covering:
    """The tests of each line, and the processor seconds of each test."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, set[str]]] = {}

    @classmethod
    def load(cls) -> Covering:
        """Read the map; an empty one if there is none."""
        covering = cls()
        if MAP.exists():
            stored = json.loads(gzip.decompress(MAP.read_bytes()))
            covering.seconds = dict(stored["tests"])
            names = list(covering.seconds)
            for file, lines in stored["lines"].items():
                covering.lines[file] = {
                    int(line): {names[i] for i in tests} for line, tests in lines.items()
                }
        return covering

    def save(self) -> None:
        place = {name: i for i, name in enumerate(self.seconds)}
        lines = {
            file: {line: sorted(place[name] for name in tests) for line, tests in lines.items()}
            for file, lines in self.lines.items()
        }
        MAP.parent.mkdir(exist_ok=True)
        text = json.dumps({"tests": list(self.seconds.items()), "lines": lines})
        MAP.write_bytes(gzip.compress(text.encode()))

    def find_tests(self, file: str, lines: set[int]) -> list[str]:
        """Return the tests of any of the lines: the fastest case of each, then the second, ...

        Lines that run at import only, such as a constant, get the tests of the whole file.
        """
        known = self.lines.get(file, {})
        found = set().union(*(known.get(line, set()) for line in lines))
        tests = sorted(found or set().union(*known.values()), key=self.seconds.__getitem__)
        cases, ranks = Counter[str](), {}
        for test in tests:
            name = test.partition("[")[0]
            ranks[test] = cases[name]
            cases[name] += 1
        return sorted(tests, key=ranks.__getitem__)


class Recorder:
    """Pytest plugin that fills a map."""

    def __init__(self, covering: Covering) -> None:
        import coverage

        self.covering = covering
        self.failed: set[str] = set()
        self.tracer = coverage.Coverage(
            data_file=None, config_file=False, include=[str(path) for path in list_files()]
        )
        self.tracer.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.tracer.switch_context(item.nodeid)
        start = sum(os.times()[:4])
        result: Any = yield
        self.covering.seconds[item.nodeid] = round(sum(os.times()[:4]) - start, 2)
        self.tracer.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)

    def finish(self) -> None:
        """Move the executed lines of the passed tests into the map."""
        self.tracer.stop()
        for name in self.failed:
            self.covering.seconds.pop(name, None)
        data = self.tracer.get_data()
        for path in data.measured_files():
            file = str(Path(path).relative_to(ROOT))
            lines = self.covering.lines.setdefault(file, {})
            for line, tests in data.contexts_by_lineno(path).items():
                lines.setdefault(line, set()).update(tests)
        for lines in self.covering.lines.values():
            for tests in lines.values():
                tests.intersection_update(self.covering.seconds)


def main(paths: Sequence[str]) -> None:
    covering = Covering.load()
    recorder = Recorder(covering)
    pytest.main(["-q", "-p", "no:xdist", *paths], plugins=[recorder])
    recorder.finish()
    covering.save()
    print(f"{len(covering.seconds)} tests, {sum(covering.seconds.values()):.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
