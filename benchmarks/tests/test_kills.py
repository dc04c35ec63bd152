"""The kill matrix in short form: a run with accumulation and dropout, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.reliability import run
from benchmarks.reliability.children import run_child
from benchmarks.reliability.killed import PHASES, Case

CHOICES = ["--teachers", "ema", "--accumulate", "2", "--lora", "0.2", "--overlap", "2"]


@pytest.mark.slow
def test_killed_and_resumed_runs_equal_the_unbroken_one(tmp_path):
    command = [sys.executable, "-m", "benchmarks.reliability.run", *CHOICES, "--workers", "2"]
    command += ["--kills", "9", "--out", str(tmp_path)]
    subprocess.run(command, check=True, timeout=900)
    (row,) = [json.loads(line) for line in (tmp_path / "kills.jsonl").read_text().splitlines()]
    assert row["different"] == []
    assert sum(row["kills"].values()) >= 9
    assert "| ema | 2 | 0.2 |" in (tmp_path / "kills.md").read_text()


def test_kills_are_in_every_phase_at_random_moments_and_in_a_row():
    runs = run.choose_kills(Case("ema", 4, None, 1, 0), 5)
    assert {phase for places in runs for phase, _ in places} == {*PHASES, "moment"}
    assert all(len(places) > 1 for places in runs)


@pytest.mark.parametrize("different", [[], ["1"]])
def test_a_run_that_differs_is_in_the_table(tmp_path, monkeypatch, different):
    def train(case, model, folder, kill):
        if kill is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        weights = "b" if folder.name in different else "a"
        (folder / "digest.json").write_text(json.dumps({"weights": weights, "log": ""}))

    monkeypatch.setattr(run, "train", train)
    monkeypatch.setattr(run, "choose_kills", lambda case, runs: [[("batch end", 1)]] * runs)
    row = run.run_case(Case("ema", 4, 0.0, 1, 0), "", 2, tmp_path)
    assert (row["runs"], row["kills"]) == (2, {"batch end": 2})
    assert [found["different"] for found in row["different"]] == [["weights"] for _ in different]
    run.write_report([row], tmp_path / "kills.md")
    report = (tmp_path / "kills.md").read_text()
    assert f"| ema | 4 | 0.0 | 2 / {len(different)} |" in report
    assert f"2 runs, 2 kills, {len(different)} runs that differ" in report


def test_a_child_that_fails_is_not_a_kill(tmp_path):
    with pytest.raises(RuntimeError, match="exit code 1"):
        run_child(lambda: [][0], tmp_path / "output.txt")
    assert "IndexError" in (tmp_path / "output.txt").read_text()


def test_a_child_is_killed_after_its_time(tmp_path):
    assert not run_child(lambda: time.sleep(600), tmp_path / "output.txt", seconds=0.05)
    assert run_child(lambda: None, tmp_path / "output.txt", seconds=600)
