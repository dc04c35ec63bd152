"""Run tests in a fork that imports one module of the package from a changed syntax tree.

This is for mutants of code that runs at import; the others are patched, which is faster.
"""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from benchmarks.grid import ROOT
from benchmarks.mutations.fork import Result, Tell, run_fork

OPTIONS = ("-x", "-q", "-s", "-p", "no:xdist", "-p", "no:anyio", "--rootdir", str(ROOT))


def run_imported(
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
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))

    def action(tell: Tell) -> int:
        return int(pytest.main([*OPTIONS, *files], plugins=[Plugin(loader, tests, tell)]))

    return run_fork(action, seconds)


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

    def __init__(self, loader: Loader | None, tests: Sequence[str], tell: Tell) -> None:
        self.loader, self.tell = loader, tell
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
            self.tell(f"import of {report.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(report.nodeid)


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
