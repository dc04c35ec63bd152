"""Rules for the layout of the package and of its tests."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lightning_sd"
TESTS = ROOT / "tests"
SOURCES = sorted(PACKAGE.rglob("*.py"))
OTHER_TESTS = {"docs", "examples", "journeys", "reference", "reliability"}
"""Folders of tests that have no counterpart in the package."""
WORDS = re.compile(r"\b(anew|likewise|nobody)\b", re.IGNORECASE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def folders(root: Path) -> set[str]:
    """Folders below ``root`` that hold Python files, as relative paths."""
    found = {path.parent.relative_to(root).as_posix() for path in root.rglob("*.py")}
    return {name for name in found if "__pycache__" not in name} - {"."}


def test_the_package_has_at_most_23_entries_at_its_top() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(entries) <= 23, sorted(entries)


def test_source_files_are_shorter_than_300_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {str(p.relative_to(ROOT)): n for p, n in lengths.items() if n >= 300}


def count_lines(function: Function) -> int:
    """Lines of a function without its docstring."""
    first, last = function.body[0], function.end_lineno or function.lineno
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
    return last - function.lineno + 1 - docstring


def test_functions_are_shorter_than_50_lines() -> None:
    lengths = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": count_lines(node)
        for path in SOURCES
        for node in functions(path)
    }
    assert not {name: n for name, n in lengths.items() if n >= 50}


def test_tests_mirror_the_package_folder_by_folder() -> None:
    assert folders(TESTS) - folders(PACKAGE) - OTHER_TESTS == set()
    # The recipe is tested with the solver, and reflection with the other contexts.
    elsewhere = {"lab/recipe", "contexts/reflection"}
    missing = folders(PACKAGE) - folders(TESTS) - elsewhere
    untested = {name for name in missing if any_code(PACKAGE / name)}
    assert untested == set()


def any_code(folder: Path) -> bool:
    return any(path.name != "__init__.py" for path in folder.glob("*.py"))


def test_file_names_in_a_folder_do_not_differ_by_an_s() -> None:
    for root in (PACKAGE, TESTS, ROOT / "benchmarks"):
        stems = {path.with_suffix("") for path in root.rglob("*.py")}
        pairs = [stem for stem in stems if stem.with_name(f"{stem.name}s") in stems]
        assert not pairs


def test_words_of_our_own_are_absent() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *SOURCES]
    assert not [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in pages
        for match in WORDS.finditer(path.read_text(encoding="utf-8"))
    ]
