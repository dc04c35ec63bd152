"""The mutation tool changes what it says, and patches only functions that live."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from benchmarks.mutations.mutate import list_mutants
from benchmarks.mutations.patch import patch
from benchmarks.mutations.report import find_interval, write_report

SOURCE = """\
LIMIT = 3


def count(values: list[int]) -> int | None:
    if len(values) < LIMIT and values:
        return sum(value + 1 for value in values)
    return None
"""


def find(change: str, source: str = SOURCE) -> ast.Module:
    (mutant,) = (m for m in list_mutants(source) if m.change == change)
    return mutant.build()


def test_each_mutant_is_one_change():
    changes = [mutant.change for mutant in list_mutants(SOURCE)]
    wanted = ["3 -> 4", "condition is False", "And -> Or", "Lt -> LtE", "return None", "Add -> Sub"]
    assert changes == [*wanted, "1 -> 2"]
    assert "value - 1" in ast.unparse(find("Add -> Sub"))
    assert "len(values) < LIMIT or values" in ast.unparse(find("And -> Or"))


def test_a_mutant_knows_its_line_and_statement():
    (mutant,) = (m for m in list_mutants("x = f(\n    1,\n)\n") if m.change == "1 -> 2")
    assert (mutant.line, mutant.statement) == (2, 1)


@pytest.fixture
def module(tmp_path: Path):
    path = tmp_path / "counting.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("counting", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_live_function_gets_the_code_of_the_mutant(module):
    count = module.count
    assert count([1, 2]) == 5
    assert patch([count], Path(module.__file__), find("Add -> Sub"))
    assert count([1, 2]) == 1  # 1 - 1 + 2 - 1


def test_what_runs_at_import_is_left_to_an_import(module):
    assert not patch([module.count], Path(module.__file__), find("3 -> 4"))
    assert module.count([1, 2, 3]) is None


def test_the_interval_of_a_share_is_wilsons():
    """Newcombe 1998, table I: 15 of 148 and 0 of 20."""
    assert find_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert find_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_report_counts_survivors(tmp_path):
    row = '{"sample": 0, "room": "text", "file": "a.py", "line": 1, "change": "c", "text": "t"'
    tail = '"test": "", "seconds": 1}'
    rows = tmp_path / "results.jsonl"
    results = ['"killed"', '"survived", "after": "killed"', '"survived", "equivalent": "why"']
    rows.write_text("\n".join(f'{row}, "result": {r}, {tail}' for r in [*results, '"survived"']))
    text = write_report(rows, tmp_path / "results.md")
    assert "| text | 4 | 1 | 3 | 1 | 1 | 1 |" in text
    assert "2 of 3, 66.7%" in text
    assert "1 of 3, 33.3%" in text
