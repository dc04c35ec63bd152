"""A cache behind a server: the same contents as on disk, and one request to the critic."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from lightning_sd.cli.cache import main
from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.client import TOKEN_VARIABLE, RemoteCritiqueCache
from lightning_sd.critique.cache.service import CritiqueService
from tests.critique.cache.fakes import EchoCritic, request

pytest.importorskip("fastapi")

TOKEN = "a secret"
ASK = textwrap.dedent(
    """
    import sys
    from lightning_sd.critique.cache.client import RemoteCritiqueCache
    from lightning_sd.critique.cache.service import CritiqueService
    from tests.critique.cache.fakes import EchoCritic, request

    critic = EchoCritic(seconds=0.05)
    service = CritiqueService(critic, RemoteCritiqueCache(sys.argv[1]))
    texts = [critique.text for critique in service.ask([request(i) for i in range(20)])]
    print(len(critic.asked), *texts)
    """
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server, and its folder."""
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "lightning_sd", "critique", "serve", str(folder), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, *command], env={**os.environ, TOKEN_VARIABLE: TOKEN}
    )
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}", folder
    process.terminate()
    process.wait(30)


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)


def test_critiques_are_those_of_a_cache_on_disk(server):
    url, folder = server
    requests = [request(i) for i in range(100, 105)]
    remote = CritiqueService(EchoCritic(), RemoteCritiqueCache(url))
    written = remote.ask(requests)
    critic = EchoCritic()
    assert CritiqueService(critic, CritiqueCache(folder)).ask(requests) == written
    assert critic.asked == []
    assert remote.ask(requests) == written


def test_two_processes_ask_the_critic_once(server):
    url, _ = server
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, url],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [rank.communicate(timeout=300)[0].split(maxsplit=1) for rank in ranks]
    assert sum(int(number) for number, _ in outputs) == 20
    assert outputs[0][1] == outputs[1][1]


def test_a_wrong_token_is_refused(server, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "a guess")
    with pytest.raises(ConnectionError, match=f"{TOKEN_VARIABLE} is not the server's token"):
        RemoteCritiqueCache(server[0]).get_many([b"key"])


def test_server_and_client_need_a_token(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv(TOKEN_VARIABLE)
    with pytest.raises(ValueError, match=f"set {TOKEN_VARIABLE}"):
        RemoteCritiqueCache("http://127.0.0.1:1")
    with pytest.raises(SystemExit):
        main(["serve", str(tmp_path)])
    assert f"critique serve: set {TOKEN_VARIABLE}" in capsys.readouterr().err


def test_a_missing_server_is_named(monkeypatch):
    monkeypatch.setattr("lightning_sd.critique.cache.client._ATTEMPTS", 1)
    with pytest.raises(ConnectionError, match="lightning-sd critique serve"):
        RemoteCritiqueCache("http://127.0.0.1:1").get_many([b"key"])
