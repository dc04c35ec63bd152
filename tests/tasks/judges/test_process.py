from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_sd.tasks.judges.process import JudgeLimits, JudgeProcess
from tests.tasks.judges.functions import misbehave

WORKER = "process_worker.py"


def find_processes(group: int) -> list[str]:
    """Command lines of the living processes of a process group."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, _, pgrp = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append((folder / "cmdline").read_text())
        except (OSError, ValueError):
            continue
    return found


@pytest.fixture
def process():
    judge = JudgeProcess(misbehave, JudgeLimits(seconds=5, megabytes=100))
    judge.run([("start",)])
    yield judge
    judge.close()


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        ("hang", "timed_out", "no result within 5 s"),
        ("spin", "timed_out", "no result within 5 s"),
        ("start a child", "timed_out", "no result within 5 s"),
        ("eat memory", "crashed", "MemoryError"),
        ("segfault", "crashed", "the process ended: SIGSEGV"),
        ("exit", "crashed", "the process ended: exit code 3"),
        ("raise", "crashed", "KeyError: 'no\\nsuch key'"),
    ],
)
def test_a_bad_call_gets_its_outcome_and_the_others_go_on(process, how, status, reason) -> None:
    group = process._worker.pid
    outcomes = process.run([("a",), (how,), ("b",)])
    assert [outcome.value for outcome in outcomes] == ["a", None, "b"]
    assert [outcome.status for outcome in outcomes] == ["judged", status, "judged"]
    assert outcomes[1].reason == reason
    if how != "raise":
        assert process._worker.pid != group
        assert find_processes(group) == []


def test_what_a_judge_prints_does_not_disturb_the_results(process, capfd) -> None:
    assert process.run([("print",), ("a",)])[1].value == "a"


def test_a_batch_has_a_limit_of_its_own() -> None:
    judge = JudgeProcess(misbehave, JudgeLimits(seconds=2, batch_seconds=7))
    judge.run([("start",)])
    start = time.monotonic()
    outcomes = judge.run([("a",), *[("hang",)] * 50, ("b",)])
    assert time.monotonic() - start < 60  # 50 limits of 2 s are 100 s
    assert outcomes[0].value == "a"
    assert {outcome.status for outcome in outcomes[1:]} == {"timed_out"}
    assert outcomes[-1].reason == "the batch took more than 7 s"
    judge.close()


def test_close_ends_the_worker_and_the_next_call_starts_another(process) -> None:
    group = process._worker.pid
    process.close()
    assert find_processes(group) == []
    assert process.run([("a",)])[0].value == "a"


def test_a_worker_that_was_killed_meanwhile_is_replaced(process) -> None:
    os.kill(process._worker.pid, signal.SIGKILL)
    time.sleep(0.2)
    assert process.run([("a",)])[0].value == "a"


def test_copies_have_workers_of_their_own(process) -> None:
    other = pickle.loads(pickle.dumps(process))
    assert other.run([("a",)])[0].value == "a"
    assert other._worker.pid != process._worker.pid
    other.close()


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_nothing_is_left_when_the_program_ends(how: str) -> None:
    """Also when it is killed while a judge hangs."""
    program = f"""
import os, signal, threading, time
from lightning_sd.tasks.judges.process import JudgeLimits, JudgeProcess
from tests.tasks.judges.functions import misbehave
judge = JudgeProcess(misbehave, JudgeLimits(seconds=300))
judge.run([("start",)])
print(judge._worker.pid, flush=True)
if {how!r} == "kill":
    threading.Thread(target=judge.run, args=([("start a child",)],)).start()
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    group = int(done.stdout)
    deadline = time.monotonic() + 30
    while find_processes(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert find_processes(group) == []


def test_without_a_limit_the_function_is_called_here() -> None:
    here = JudgeProcess(os.getpid, JudgeLimits(seconds=None))
    assert here.run([()])[0].value == os.getpid()
    failing = JudgeProcess(misbehave, JudgeLimits(seconds=None))
    assert failing.run([("raise",)])[0].status == "crashed"


def test_what_cannot_be_sent_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"judge_limits\.seconds"):
        JudgeProcess(lambda: 1).run([()])
    with pytest.raises(TypeError, match="an argument of the judge"):
        JudgeProcess(misbehave).run([(lambda: 1,)])


def test_what_cannot_be_imported_is_refused_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setattr(misbehave, "__module__", "nowhere")
    monkeypatch.setitem(sys.modules, "nowhere", sys.modules["tests.tasks.judges.functions"])
    with pytest.raises(RuntimeError, match="No module named 'nowhere'"):
        JudgeProcess(misbehave).run([("a",)])


def test_what_the_main_script_defines_is_refused_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setattr(misbehave, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "misbehave", misbehave, raising=False)
    with pytest.raises(TypeError, match="judge=misbehave: the main script defines it"):
        JudgeProcess(misbehave).run([("a",)])


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"batch_seconds": 0}, {"megabytes": 0}])
def test_limits_out_of_range_are_named(limits) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(limits))}=0"):
        JudgeLimits(**limits)
