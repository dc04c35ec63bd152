"""Mutation test of the package's heart: change one place, run the matching tests, expect a failure.

    python -m benchmarks.mutations.run --glue              # the named places of glue.py
    python -m benchmarks.mutations.run --per-file 10       # drawn mutants of each file

Each mutant runs in a fork of one process that has already imported the libraries. Only the forked
copy sees the changed module; no file is written. An interrupted run continues where it stopped;
``results.jsonl`` holds one row per mutant, ``results.md`` lists the survivors.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.grid import ROOT, Row, read_rows
from benchmarks.mutations.glue import GLUE
from benchmarks.mutations.mutate import Mutant, list_mutants
from benchmarks.mutations.plan import list_files, list_tests
from benchmarks.mutations.report import write_report

HERE = Path(__file__).parent
RESULTS = HERE / "results.jsonl"
SURVIVED, KILLED, TIMEOUT = "survived", "killed", "timeout"


class Loader(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from a changed syntax tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path))
        spec.has_location = True
        if self.path.name == "__init__.py":
            spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def get_source(self, fullname: str) -> str:
        return self.path.read_text(encoding="utf-8")

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


class Plugin:
    """Installs the loader after pytest's import hook, which would otherwise import the original."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        self.loader = Loader(name, path, tree)

    def pytest_sessionstart(self) -> None:
        sys.meta_path.insert(0, self.loader)


def run_mutant(path: Path, tree: ast.Module | None, tests: Sequence[str], seconds: float) -> str:
    """Run the tests in a fork that imports ``path`` from ``tree``; None: unchanged."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os._exit(_run_tests(path, tree, tests))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _end_group(child)
            # Exit code 1 is a failed test. Codes 2 to 4 are errors of collection or an interrupt.
            return SURVIVED if os.waitstatus_to_exitcode(status) == 0 else KILLED
        time.sleep(0.05)
    _end_group(child)
    os.waitpid(child, 0)
    return TIMEOUT


def _end_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _run_tests(path: Path, tree: ast.Module | None, tests: Sequence[str]) -> int:
    import pytest

    plugins = [] if tree is None else [Plugin(path, tree)]
    log = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*options, *tests], plugins=plugins))


def import_libraries() -> None:
    """Import everything that is slow and not under test, once for all forks."""
    import hypothesis  # noqa: F401
    import lightning.pytorch  # noqa: F401
    import pytest  # noqa: F401
    import torch
    from torch.utils import flop_counter  # noqa: F401
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        GPT2LMHeadModel,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    torch.set_num_threads(1)


def draw_mutants(path: Path, number: int) -> list[Mutant]:
    """Draw mutants of a file; a larger number keeps those of a smaller one."""
    mutants = list(list_mutants(path.read_text(encoding="utf-8")))
    random.Random(path.name).shuffle(mutants)
    return mutants[:number]


def make_key(path: Path, text: str) -> str:
    """Identify a mutant of this version of a file."""
    source = path.read_bytes()
    digest = hashlib.sha256(source + text.encode()).hexdigest()[:12]
    return f"{path.relative_to(ROOT)}:{digest}"


def run_drawn(files: Sequence[Path], number: int, seconds: float) -> None:
    """Run drawn mutants of each file that have no row yet."""
    done = {row["key"] for row in read_rows(RESULTS)}
    for path in files:
        tests = list_tests(path)
        lines = path.read_text(encoding="utf-8").splitlines()
        for mutant in draw_mutants(path, number):
            key = make_key(path, ast.dump(mutant.tree))
            if key in done:
                continue
            facts = {"line": mutant.line, "change": mutant.change}
            text = lines[mutant.line - 1].strip() if mutant.line else ""
            _record(key, path, mutant.tree, tests, seconds, {**facts, "text": text})


def run_glue(seconds: float) -> None:
    """Run the named places of ``glue.py`` that have no row yet."""
    done = {row["key"] for row in read_rows(RESULTS)}
    for place in GLUE:
        path = ROOT / "lightning_sd" / place.path
        source = path.read_text(encoding="utf-8")
        if source.count(place.old) != 1:
            raise ValueError(f"{place.path}: {place.old!r} must occur once, for {place.name!r}.")
        key = make_key(path, place.name)
        if key not in done:
            tree = ast.parse(source.replace(place.old, place.new))
            tests = [str(ROOT / "tests" / name) for name in place.tests]
            _record(key, path, tree, tests, seconds, {"glue": place.name})


def _record(
    key: str, path: Path, tree: ast.Module, tests: Sequence[str], seconds: float, facts: Row
) -> None:
    start = time.monotonic()
    result = run_mutant(path, tree, tests, seconds)
    row = {"key": key, "file": str(path.relative_to(ROOT)), **facts, "result": result}
    row["seconds"] = round(time.monotonic() - start, 1)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", action="store_true", help="run the named places")
    parser.add_argument("--per-file", type=int, default=0, help="drawn mutants per file")
    parser.add_argument("--files", nargs="*", type=Path, help="only these files")
    parser.add_argument("--seconds", type=float, default=300.0, help="time limit per mutant")
    args = parser.parse_args()
    import_libraries()
    if args.glue:
        run_glue(args.seconds)
    files = [path.resolve() for path in args.files] if args.files else list_files()
    run_drawn(files, args.per_file, args.seconds)
    print(write_report(RESULTS, HERE / "results.md"))


if __name__ == "__main__":
    main()
