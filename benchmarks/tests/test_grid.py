"""Rows of results files, plain and compressed, and runs that fail."""

from __future__ import annotations

import json

import pytest

from benchmarks.grid import Run, pack_rows, packed_path, read_rows, run_grid


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_are_those_of_the_compressed_file_then_those_of_the_plain_one(tmp_path):
    path = tmp_path / "results.jsonl"
    assert read_rows(path) == []
    write(path, {"key": "a"}, {"key": "b"})
    assert pack_rows(path) == packed_path(path) == tmp_path / "results.jsonl.gz"
    assert not path.exists()
    assert read_rows(path) == [{"key": "a"}, {"key": "b"}]
    path.write_text('{"key": "c"}\n{"key": "cut of')
    assert [row["key"] for row in read_rows(path)] == ["a", "b", "c"]
    pack_rows(path)
    assert [row["key"] for row in read_rows(path)] == ["a", "b", "c"]
    assert {p.name for p in tmp_path.iterdir()} == {"results.jsonl.gz"}


def test_the_same_rows_are_the_same_bytes(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in files:
        write(path, {"key": "a", "avg": [0.25, 1.0]})
    first, second = (pack_rows(path).read_bytes() for path in files)
    assert first == second


def test_a_grid_runs_what_has_no_row_and_names_what_failed(tmp_path):
    results = tmp_path / "results.jsonl"
    write(results, {"key": "old-seed1", "value": 1})
    pack_rows(results)
    runs = [
        Run("old", 1, [["-m", "this_module_is_missing"]]),
        Run("new", 1, [["-m", "platform"]]),
    ]
    rows = run_grid(runs, lambda run, folder: {"value": 2}, results, tmp_path / "scratch", jobs=1)
    assert [(row["key"], row["value"]) for row in rows] == [("old-seed1", 1), ("new-seed1", 2)]
    assert [row["key"] for row in read_rows(results)] == ["old-seed1", "new-seed1"]
    broken = [Run("broken", 1, [["-m", "this_module_is_missing"]])]
    with pytest.raises(RuntimeError, match=r"(?s)1 of 1 runs failed.*this_module_is_missing"):
        run_grid(broken, lambda run, folder: {}, results, tmp_path / "scratch", jobs=1)


def test_short_runs_side_by_side_do_not_fail(tmp_path):
    runs = [Run("short", seed, 3 * [["-m", "platform"]]) for seed in range(24)]
    results = tmp_path / "results.jsonl"
    rows = run_grid(runs, lambda run, folder: {}, results, tmp_path / "scratch", jobs=6)
    assert [row["seed"] for row in rows] == list(range(24))
