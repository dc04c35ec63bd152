"""Every promise of docs/reliability.md names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
HEAD = "| promise | fault | behavior | exit code | test |"
ROWS = [ln for ln in PAGE.splitlines() if ln.startswith("| ") and ln != HEAD]
NAME = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def list_tests():
    """The tests of all files, as (file name, function name)."""
    return {
        (path.name, node.name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }


def test_every_table_has_the_same_columns():
    assert PAGE.count(HEAD) == PAGE.count("\n|---") > 5


def test_every_promise_names_tests_that_exist():
    known = list_tests()
    for row in ROWS:
        promise, fault, behavior, code, tests = row.strip("| ").split(" | ")
        assert all((promise, fault, behavior, code)), row
        named = NAME.findall(tests)
        assert named, row
        assert set(named) <= known, set(named) - known
