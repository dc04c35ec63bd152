"""Run tests in a fork that imports one module of the package from a changed syntax tree."""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib.abc
import importlib.machinery
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from benchmarks.grid import ROOT

MEMORY = 12 * 2**30
"""Bytes of address space of a fork; a mutant may ask for any amount."""
PATIENCE = 10
"""Seconds of waiting per processor second of the limit: the machine may be busy."""


class Result(NamedTuple):
    """What a fork found."""

    name: str
    """``survived``, ``killed``, ``timeout``, or ``untested`` if no test was collected."""
    test: str
    """The first failing test."""
    seconds: float
    """Processor time."""


class Loader(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a changed syntax tree."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.path, self.tree = path, tree

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path))
        spec.has_location = True
        return spec

    def get_source(self, fullname: str) -> str:
        return self.path.read_text(encoding="utf-8")

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


class Plugin:
    """Installs the loader, runs the chosen tests in their order, and tells which one failed."""

    def __init__(self, loader: Loader | None, tests: Sequence[str], report: int) -> None:
        self.loader, self.report = loader, report
        self.places = {name: place for place, name in enumerate(tests)}

    def pytest_sessionstart(self) -> None:
        # After pytest's own import hook was installed, which would import the original.
        if self.loader is not None:
            sys.meta_path.insert(0, self.loader)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        names = {item: item.nodeid for item in items if item.nodeid in self.places}
        files = {item: item.nodeid.partition("::")[0] for item in items if item not in names}
        chosen = names | {item: file for item, file in files.items() if file in self.places}
        items[:] = sorted(chosen, key=lambda item: self.places[chosen[item]])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(f"import of {report.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._tell(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        loaded = self.loader and sys.modules.get(self.loader.name)
        if loaded and loaded.__spec__ and loaded.__spec__.loader is not self.loader:
            self._tell(f"ERROR: {loaded.__name__} is not the changed module")

    def _tell(self, text: str) -> None:
        os.write(self.report, f"{text}\n".encode())


def import_libraries() -> None:
    """Import everything that is slow and not under test, once for all forks."""
    import datasets  # noqa: F401
    import hypothesis
    import jsonargparse  # noqa: F401
    import lightning.pytorch  # noqa: F401
    import peft  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401
    from torch.utils import flop_counter  # noqa: F401
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        GPT2LMHeadModel,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None)
    hypothesis.settings.load_profile("mutants")
    gc.freeze()


def run_fork(
    path: Path | None, tree: ast.Module | None, tests: Sequence[str], seconds: float
) -> Result:
    """Run tests, in the given order, until one fails.

    Args:
        path: The changed file; None for the package as it is.
        tree: Its changed syntax tree.
        tests: Names as pytest prints them, or files.
        seconds: Limit of the processor time.
    """
    loader = None if path is None or tree is None else Loader(path, tree)
    before = sum(os.times()[2:4])
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        os.setpgid(0, 0)
        os._exit(_run_tests(loader, tests, sink, seconds))
    os.close(sink)
    status = _wait(child, source, seconds * PATIENCE)
    with os.fdopen(source, errors="replace") as file:
        failed = file.readline().strip() if select.select([file], [], [], 1)[0] else ""
    return Result(_read_status(status), failed, round(sum(os.times()[2:4]) - before, 1))


def _wait(child: int, source: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    pid, status = 0, 0
    while not pid and time.monotonic() < deadline:
        time.sleep(0.02)
        pid, status = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not pid:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def _read_status(code: int | None) -> str:
    if code in (None, -signal.SIGXCPU):
        return "timeout"
    # Exit code 1 is a failed test, 2 an error of collection; 4 and 5 mean that there is no test.
    return {0: "survived", 4: "untested", 5: "untested"}.get(code or 0, "killed")


def _run_tests(loader: Loader | None, tests: Sequence[str], report: int, seconds: float) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    options = [
        "-x",
        "-q",
        "--no-header",
        "-p",
        "no:xdist",
        "-p",
        "no:anyio",
        "--rootdir",
        str(ROOT),
    ]
    return int(pytest.main([*options, *files], plugins=[Plugin(loader, tests, report)]))
