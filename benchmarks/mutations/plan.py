"""Which files are mutated, and which tests have to notice."""

from __future__ import annotations

from pathlib import Path

from benchmarks.grid import ROOT

FOLDERS = ("functional", "scoring", "rollout", "teachers", "objectives")
FILES = ("contexts/base.py", "modules/self_distill.py", "modules/rollout_scorer.py")
FURTHER = {
    "functional": ("objectives/test_objectives.py", "objectives/test_contrastive.py"),
    "scoring": ("objectives/test_reduce.py", "teachers/test_teachers.py", "modules/test_work.py"),
    "rollout": ("modules/test_self_distill.py",),
    "teachers": ("modules/test_self_distill.py",),
    "objectives": ("modules/test_self_distill.py", "modules/test_methods.py"),
}
"""Tests of other folders that use a folder's code, below tests/."""


def list_files() -> list[Path]:
    """List the files of the package's heart."""
    package = ROOT / "lightning_sd"
    found = [path for name in FOLDERS for path in sorted((package / name).glob("*.py"))]
    return [path for path in found if path.name != "__init__.py"] + [package / f for f in FILES]


def list_tests(path: Path) -> list[str]:
    """List the tests of a file: its doctests, its folder's tests, and further ones."""
    folder = path.relative_to(ROOT / "lightning_sd").parts[0]
    tests = [path, ROOT / "tests" / folder, *(ROOT / "tests" / f for f in FURTHER.get(folder, ()))]
    return [str(test) for test in tests]
