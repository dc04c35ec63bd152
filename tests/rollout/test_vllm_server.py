"""VLLMServerSampler: what it asks for, and a real server that follows the student."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_sd import VLLMServerSampler
from tests.rollout.test_vllm_sampler import PROMPTS, STOP, decode_greedily, make_model, move


class FakeServer(BaseHTTPRequestHandler):
    """Answers each prompt with its first token and the stop token; remembers what it was asked."""

    asked: list[tuple[str, Any, str | None]]
    status = 200

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/collective_rpc":
            body["weights"] = load_file(body["kwargs"]["weights_path"] + "/model.safetensors")
        type(self).asked.append((self.path, body, self.headers["Authorization"]))
        choice = {
            "token_ids": [*body.get("prompt", [0])[:1], 1],
            "logprobs": {"token_logprobs": [-0.5, -0.25]},
            "finish_reason": "stop",
        }
        self.send_response(type(self).status)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [choice]}).encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Any:
    FakeServer.asked, FakeServer.status = [], 200
    http = ThreadingHTTPServer(("127.0.0.1", 0), FakeServer)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


def sample(model: Any, sampler: VLLMServerSampler) -> Any:
    generator = torch.Generator().manual_seed(0)
    return sampler.sample(model, PROMPTS, samples=2, stop_ids=STOP, generator=generator)


def test_requests_and_completions(make_llama: Any, server: str, tmp_path: Any, monkeypatch: Any):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    model = make_model(make_llama, tie_word_embeddings=True)
    sampler = VLLMServerSampler(12, url=server, weights_dir=str(tmp_path), stop_token_ids=[7])
    completions = sample(model, sampler)
    assert [(c.prompt, c.ids) for c in completions] == [
        (i, (PROMPTS[i][0], 1)) for i in (0, 0, 1, 1, 2, 2)
    ]
    assert completions[0].logprobs == (-0.5, -0.25)
    assert all(c.finished for c in completions)
    (_, reload, key), (path, *_), *requests = FakeServer.asked
    assert (reload["method"], path, key) == (
        "reload_weights",
        "/reset_prefix_cache",
        "Bearer secret",
    )
    torch.testing.assert_close(reload["weights"], dict(model.state_dict()))
    assert len({body["seed"] for _, body, _ in requests}) == 6
    assert all(body["stop_token_ids"] == [1, 7] for _, body, _ in requests)
    assert not list(tmp_path.iterdir())


def test_weights_are_sent_only_if_they_changed(make_llama: Any, server: str, tmp_path: Any):
    model = make_model(make_llama)
    sampler = VLLMServerSampler(12, url=server, weights_dir=str(tmp_path))
    assert [sampler.sync(model), sampler.sync(model)] == [True, False]
    move(model)
    assert sampler.sync(model)


def test_a_server_that_refuses_or_is_gone_is_named(make_llama: Any, server: str, tmp_path: Any):
    model = make_model(make_llama)
    FakeServer.status = 404
    with pytest.raises(RuntimeError, match=r"/collective_rpc with 404.*VLLM_SERVER_DEV_MODE"):
        sample(model, VLLMServerSampler(12, url=server, weights_dir=str(tmp_path)))
    gone = VLLMServerSampler(12, url="http://127.0.0.1:9", weights_dir=str(tmp_path))
    with pytest.raises(RuntimeError, match="Check `url`"):
        sample(model, gone)
    with pytest.raises(ValueError, match=r"temperature=0.7"):
        VLLMServerSampler(temperature=0.7)


@pytest.fixture
def real_server(make_llama: Any, tokenizer: Any, tmp_path: Any) -> Any:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tmp_path / "model"
    make_model(make_llama).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--enforce-eager --max-model-len 128 --dtype float32 --port {port}"
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_SERVER_DEV_MODE": "1"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", *options.split()],
            env={**os.environ, **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while not is_up(url):
            assert process.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/health", timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.slow
def test_a_real_server_follows_the_weights(make_llama: Any, real_server: str, tmp_path: Any):
    model = make_model(make_llama)
    settings = {"url": real_server, "weights_dir": str(tmp_path / "weights")}
    greedy = VLLMServerSampler(12, temperature=0.0, **settings)
    answers = []
    for _ in range(2):
        move(model)
        answers.append([c.ids for c in sample(model, greedy)[::2]])
        assert answers[-1] == decode_greedily(model)
    assert answers[0] != answers[1]
    generator = torch.Generator().manual_seed(0)
    draw = greedy.start(model, PROMPTS, samples=1, stop_ids=STOP, generator=generator)
    move(model)
    assert [c.ids for c in draw()] == answers[1]  # the weights at its start, one step ahead
    drawn = VLLMServerSampler(12, **settings)
    first = sample(model, drawn)
    assert first == sample(model, drawn)
    for completion in first:
        ids = torch.tensor([[*PROMPTS[completion.prompt], *completion.ids]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(PROMPTS[completion.prompt]) - 1 : -1]
        own = logits.log_softmax(-1).gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(completion.logprobs), own, rtol=0, atol=1e-5)
