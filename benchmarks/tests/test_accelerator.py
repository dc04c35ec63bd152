"""The accelerator kit in its small form, on the CPU and in one process."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from benchmarks.accelerator.device import PREFIX
from benchmarks.accelerator.report import format_report
from benchmarks.accelerator.run import LIMIT, list_parts, run_part

pytestmark = pytest.mark.slow


def test_every_part_runs_and_is_in_the_table(tmp_path, capsys, monkeypatch):
    results = {"machine": {"device": "CPU"}, "parts": {}}
    for part in list_parts(tmp_path, small=True):
        monkeypatch.setattr(sys, "argv", [part.module, *part.options])
        importlib.import_module(f"benchmarks.accelerator.{part.module}").main()
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if line.startswith(PREFIX)]
        results["parts"][part.name] = {"status": "ok", **json.loads(line.removeprefix(PREFIX))}
    numerics = results["parts"]["numerics"]["rows"]
    assert len(numerics) == 12
    assert all(row["ok"] for row in numerics)
    paths = {row["path"]: row for row in results["parts"]["paths"]["rows"]}
    assert paths["sdpa"]["error"] < 1e-5
    ways = {row["way"]: row for row in results["parts"]["loss"]["rows"]}
    assert ways["ours"]["loss"] == pytest.approx(ways["dense"]["loss"], rel=1e-5)
    norms = ways["dense"]["gradient_norms"]
    assert ways["ours"]["gradient_norms"] == pytest.approx(norms, rel=1e-5)
    assert (tmp_path / "trace.json").stat().st_size > 1000
    table = format_report(results)
    assert table.count("| numerics |") == 12
    assert "x the roofline" in table


def test_a_part_that_fails_leaves_its_reason(tmp_path):
    (part, *_) = list_parts(tmp_path, small=True)
    result = run_part(part._replace(module="missing"), tmp_path, 60)
    table = format_report({"machine": {}, "parts": {part.name: result}})
    assert "exit code 1: " in table
    assert "No module named" in table


def test_the_time_for_all_parts_is_below_ten_minutes(tmp_path):
    names = [part.name for part in list_parts(tmp_path, small=False)]
    assert names == [
        *("numerics", "paths", "loss", "step 0.5b ours", "step 0.5b trl"),
        *("step 1.7b ours", "step 1.7b trl", "profile"),
    ]
    assert LIMIT < 600
