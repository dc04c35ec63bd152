"""Processes that die while they write; the long form stands in benchmarks/critique_cache."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from benchmarks.critique_cache import kill
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.maintenance import summarize_cache, verify_cache


def test_nothing_is_lost_when_writers_are_killed(tmp_path):
    result = kill.run(tmp_path, kills=8, longest_pause=0.3)
    assert result["safe"] > 50
    assert [result[name] for name in ("lost", "wrong", "corrupt", "double")] == [0, 0, 0, 0]
    # Only what a killed writer had asked and not written yet is asked again.
    assert result["asked_twice"] <= result["kills"] * kill.BATCH


PREFILL = textwrap.dedent(
    """
    import sys
    from lightning_sd.data.module import CritiqueDataModule
    from tests.critique.cache.fakes import EchoCritic, NumberTask

    critic = EchoCritic(batch_size=1, seconds=float(sys.argv[2]))
    data = CritiqueDataModule(NumberTask(train=200, attempts=True), critic, sys.argv[1])
    data.setup("fit")
    print("begun", flush=True)
    report = data.critique_all(data.train_questions, progress=True)
    print("asked", len(critic.asked), "cases", dict(report.cases))
    """
)


def start(folder, seconds):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PREFILL, str(folder), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_filling_the_cache_goes_on_after_sigterm(tmp_path):
    first = start(tmp_path, 0.05)
    assert first.stdout.readline() == "begun\n"  # its start takes minutes on a busy machine
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        there = (tmp_path / "critiques.sqlite").exists()
        if there and summarize_cache(tmp_path)["critiques"] >= 20:
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=300)
    assert first.returncode == -signal.SIGTERM
    had = len(CritiqueCache(tmp_path))
    assert 20 <= had < 200
    assert verify_cache(tmp_path) == []

    second = start(tmp_path, 0)
    out, _ = second.communicate(timeout=600)
    assert f"asked {200 - had} cases {{'D': 200}}" in out
    assert "200/200" in out
    assert len(CritiqueCache(tmp_path)) == 200
