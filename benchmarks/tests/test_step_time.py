"""The scripts of the step-time benchmark run, at a tiny size and without TRL."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.grid import ROOT
from benchmarks.step_time.clock import PHASES, PREFIX

pytestmark = pytest.mark.slow


def run(module, *arguments):
    command = [sys.executable, "-m", f"benchmarks.step_time.{module}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(PREFIX)]
    return json.loads(line.removeprefix(PREFIX))


@pytest.mark.parametrize("context", ["sibling", "own"])
def test_our_step_is_timed_in_all_its_phases(context):
    result = run("ours", "--shape", "tiny", "--context", context, "--steps", "1")
    assert len(result["steps"]) == 1
    (phases,) = result["phases"]
    assert set(phases) == set(PHASES)
    assert all(phases[name] > 0 for name in PHASES)
    assert sum(phases.values()) <= result["steps"][0] * 1.01
    # The lengths that the shape asks for really occur.
    assert result["seen"]["student_prompt"] == 8
    assert result["seen"]["teacher_prompt"] == 20
    assert result["seen"]["shortest"] == 6


def test_the_loss_and_the_floor_are_timed():
    assert run("loss_only", "--how", "ours", "--tokens", "16")["seconds"] > 0
    floor = run("floor", "--shape", "tiny", "--repeats", "1")
    assert floor["floor"] == pytest.approx(sum(floor["parts"].values()), abs=1e-3)
