"""A real OpenAI-compatible server on loopback, with a bad line in front of it."""

import importlib.util
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from lightning_sd.critique.base import CritiqueRequest
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.prefill import prefill
from lightning_sd.critique.cache.service import CritiqueService
from lightning_sd.critique.critics.server import ServerCritic
from lightning_sd.lab.arithmetic import ArithmeticTask
from lightning_sd.models import PretrainedModel
from tests.critique.critics.fault_server import serving

SOLVER = str(PretrainedModel("package:lightning_sd/lab/solver").path())
FAULTS = ["drop", "late", "half", "bad json", 429, 500]


@pytest.fixture(scope="module")
def upstream():
    """``transformers serve`` with the embedded solver."""
    if not all(map(importlib.util.find_spec, ("fastapi", "uvicorn"))):
        pytest.skip("needs transformers[serving]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", SOLVER]
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(f"{url}/health", process)
        yield f"{url}/v1"
    finally:
        process.kill()
        process.wait()


def wait_until_up(url, process):
    for _ in range(2000):  # 10 minutes: the server imports torch, perhaps on a busy machine
        if process.poll() is not None:
            pytest.fail(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail("the server did not start")


def requests(number):
    task = ArithmeticTask(train_size=number)
    attempt = "<step_1>7+5=2</step_1><answer>2</answer>"
    return [CritiqueRequest(q, attempt, task.verify(q, attempt)) for q in task.questions("train")]


@pytest.mark.slow
def test_200_critiques_by_a_real_server_through_a_bad_line(upstream, tmp_path):
    chance, lock = random.Random(0), threading.Lock()

    def behave(prompt, attempt):
        with lock:
            return chance.choice(FAULTS) if chance.random() < 0.3 else None

    wanted = requests(200)
    with serving(behave, upstream) as proxy:
        critic = ServerCritic(
            SOLVER,
            proxy.url,
            max_new_tokens=8,
            concurrency=4,
            timeout=30,
            retries=8,
            prompt="{question}{attempt}",
        )
        service = CritiqueService(critic, CritiqueCache(tmp_path))
        report = prefill(service, wanted)
        assert len(service.cache) + len(report.failed) == 200
        assert sum(report.cases.values()) + sum(report.refused.values()) == len(service.cache)
        assert len(report.failed) < 10
        # The solver writes a whole attempt, which does not fit in 8 tokens: refused, with a reason.
        assert set(report.refused) == {"it was cut off at the critic's length limit"}
        before = sum(proxy.attempts.values())
        again = CritiqueService(critic, CritiqueCache(tmp_path))
        prefill(again, wanted)
        assert again.pop_counters()["critique_hits"] == 200 - len(report.failed)
        assert sum(proxy.attempts.values()) - before <= 9 * len(report.failed)
