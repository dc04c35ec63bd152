"""The kill matrix in short form: a run with accumulation and dropout, killed and resumed."""

import json
import subprocess
import sys

import pytest

from benchmarks.reliability.killed import Case
from benchmarks.reliability.run import PHASES, choose_kills

CHOICES = ["--teachers", "ema", "--accumulate", "2", "--lora", "0.2", "--overlap", "2"]


@pytest.mark.slow
def test_killed_and_resumed_runs_equal_the_unbroken_one(tmp_path):
    command = [sys.executable, "-m", "benchmarks.reliability.run", *CHOICES, "--workers", "2"]
    command += ["--kills", "4", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=900)
    (row,) = [json.loads(line) for line in (tmp_path / "kills.jsonl").read_text().splitlines()]
    assert row["different"] == []
    assert row["kills"] >= 3
    assert "| 0 |" in (tmp_path / "kills.md").read_text()


def test_kills_are_in_every_phase_at_random_moments_and_two_in_a_row():
    runs = choose_kills(Case("ema", 4, None, 1, 0), 20)
    assert sum(map(len, runs)) >= 20
    assert {run[0][0] for run in runs} == {*PHASES, "moment"}
    assert any(len(run) == 2 for run in runs)
