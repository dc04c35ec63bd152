"""The scripts of the step-time benchmark run, at a tiny size and without TRL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks.grid import ROOT
from benchmarks.step_time.clock import PHASES, PREFIX
from benchmarks.step_time.distance import list_distances
from benchmarks.step_time.operators import WHOLE, Operator, find_phase, read_rows, sum_kinds
from benchmarks.step_time.table import Entry
from benchmarks.step_time.vocabulary import format_operators

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


def test_page_faults_are_counted_instead_of_seconds():
    command = [sys.executable, "-m", "benchmarks.step_time.ours", "--shape", "tiny", "--steps", "1"]
    environment = {**os.environ, "STEP_TIME_READING": "faults"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(PREFIX)]
    result = json.loads(line.removeprefix(PREFIX))
    # The first step loads code and allocates the optimizer's state.
    assert result["warm_up"][0] > 100
    counts = [*result["warm_up"], *result["steps"], *result["phases"][0].values()]
    assert all(float(count).is_integer() for count in counts)


def test_a_profile_has_all_phases_and_adds_up(tmp_path):
    command = [sys.executable, "-m", "benchmarks.step_time.operators", "--shapes", "tiny"]
    subprocess.run([*command, "--folder", str(tmp_path)], cwd=ROOT, check=True, timeout=300)
    rows = {row["phase"]: row for row in read_rows(tmp_path / "operators.csv")}
    assert set(rows) == {*PHASES, "other", WHOLE}
    for phase in ("rollout", "teacher", "student", "loss", "backward"):
        assert float(rows[phase]["matrix products"]) > 0, phase
    for row in rows.values():
        parts = sum(float(row[name]) for name in list(row)[3:-1])
        assert parts == pytest.approx(float(row["seconds"]), abs=1e-3)
    assert WHOLE not in (tmp_path / "operators.md").read_text().split("## Phases")[1]


def test_operators_belong_to_the_phase_around_them():
    def call(name, parent=None):
        return SimpleNamespace(name=name, cpu_parent=parent)

    assert find_phase(call("aten::mm", call("aten::linear", call("phase loss")))) == "loss"
    assert (
        find_phase(call("aten::mm", call("autograd::engine::evaluate_function: X"))) == "backward"
    )
    assert find_phase(call("aten::mul", call("Optimizer.step#AdamW.step"))) == "optimizer"
    assert find_phase(call("aten::mul")) == "other"


def test_kinds_are_summed_per_phase_and_for_the_step():
    operators = [
        Operator("loss", "addmm_", 1, 2.0),
        Operator("loss", "mul", 3, 0.5),
        Operator("rollout", "mm", 1, 1.0),
    ]
    loss, step = sum_kinds(operators, {"loss": 3.0, WHOLE: 5.0})
    assert (loss["matrix products"], loss["arithmetic"], loss["outside operators"]) == (2, 0.5, 0.5)
    assert (step["matrix products"], step["outside operators"]) == (3, 1.5)


def test_operators_are_ordered_by_what_exceeds_their_first_slope():
    seconds = {"linear": (1, 2, 4), "square": (1, 4, 16), "fixed": (1, 1, 1)}
    rows = [
        {"reading": "operators", "phase": "loss", "operator": name, "vocab": vocab, "value": value}
        for name, values in seconds.items()
        for vocab, value in zip((1000, 2000, 4000), values, strict=True)
    ]
    lines = format_operators(rows).splitlines()[2:]
    assert lines[0].startswith("| loss | `square` | 1.00 | 4.00 | 16.00 | 3000.0, 6000.0 | 6.00 |")
    assert all(line.endswith("| 0.00 |") for line in lines[1:])


def test_the_distance_to_the_floor_is_split_by_phase():
    def entry(part, result, **facts):
        return Entry({"part": part, "shape": "a", **facts}, {1: result}, (0.0,), ("x",))

    ours = dict(zip(PHASES, (5.0, 2.0, 2.0, 4.0, 3.0, 1.0), strict=True))
    parts = {"prefill": 1.0, "decode": 9.0, "teacher": 1.0, "student": 2.0, "heads": 3.0}
    floor = {"parts": {**parts, "backward": 3.0}, "packed": 2.0}
    step = entry("step", {"phases": [ours]}, loss="js", context="sibling", trainer="ours")
    rows = list_distances([step, entry("floor", floor)])
    above = {row[1]: (row[4], row[5]) for row in rows}
    assert above["rollout"] == (2.0, "40%")  # packed decoding counts, not torch's
    assert above["student"] == (0.0, "0%")
    assert above["optimizer"] == (1.0, "20%")
    assert sum(value for value, _ in above.values()) == 5.0
