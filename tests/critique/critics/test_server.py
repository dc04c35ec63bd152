import logging
import pickle
import random
import threading
import time

import lightning.pytorch as pl
import pytest
import torch

from lightning_sd.critique.cache.cache import CritiqueCache
from lightning_sd.critique.cache.keys import compute_key, compute_keys
from lightning_sd.critique.cache.prefill import prefill
from lightning_sd.critique.cache.service import CritiqueService
from lightning_sd.critique.critics.chat_client import ChatClient, RateLimit, ServerError
from lightning_sd.critique.critics.server import ServerCritic
from lightning_sd.data.module import CritiqueDataModule
from tests.critique.cache.fakes import NumberTask, request
from tests.critique.critics.fault_server import GOOD, completion, serving
from tests.data.test_module import Student

FAULTS = ["drop", "late", "drip", "half", "bad json", "no choices", "html", 429, 500, 503]
PROMPT = "{question}|{attempt}"


def critic(server, **options):
    defaults = {"timeout": 0.5, "retries": 4, "concurrency": 8, "prompt": PROMPT}
    one = ServerCritic("model", server.url, **{**defaults, **options})
    quick(one)
    return one


def quick(one):
    """Waits between attempts are short here."""
    make = one._create_client

    def client(stop):
        made = make(stop)
        object.__setattr__(made, "backoff", 0.01)
        return made

    one._create_client = client


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_asks_as_openai_does():
    with serving() as server:
        body = {"seed": 3}
        [critique] = critic(server, max_new_tokens=77, body=body).critique([request(3, "x")])
    assert (critique.text, critique.refused, critique.tokens) == (GOOD, None, 7)
    assert critique.seconds > 0
    assert server.bodies == [
        {
            "model": "model",
            "messages": [{"role": "user", "content": "What is 3?|x"}],
            "max_tokens": 77,
            "temperature": 0,
            "seed": 3,
        }
    ]
    assert "Authorization" not in server.headers_seen[0]


@pytest.mark.parametrize(
    ("answer", "text", "refused"),
    [
        (completion(f"<think>hm</think>{GOOD}"), GOOD, None),
        (completion(f"hm</think>\n{GOOD}"), GOOD, None),
        (completion(GOOD, "length"), GOOD, "cut off"),
        (completion(None), "", "empty"),
        (completion("Well done!"), "Well done!", "no answer"),
        (completion("\ud800"), "\ud800", "no answer"),
    ],
)
def test_answers_are_checked(answer, text, refused):
    with serving(lambda prompt, attempt: answer) as server:
        [critique] = critic(server).critique([request()])
    assert critique.text == text
    assert critique.refused is None if refused is None else refused in critique.refused


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_costs_a_retry(fault):
    with serving(lambda prompt, attempt: fault if attempt < 3 else None) as server:
        [critique] = critic(server).critique([request()])
    assert critique.refused is None
    assert list(server.attempts.values()) == [3]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "connection"),
        ("late", "timeout"),
        ("drip", "timeout"),
        ("half", "malformed"),
        ("bad json", "malformed"),
        ("no choices", "malformed"),
        (429, "status: 429"),
        (500, "status: 500"),
    ],
)
def test_a_fault_that_stays_is_told_with_its_reason(fault, reason):
    with serving(lambda prompt, attempt: fault) as server:
        [critique] = critic(server, retries=1).critique([request()])
    assert critique.refused.startswith("failed: ")
    assert reason in critique.refused
    assert "(try 2)" in critique.refused
    assert list(server.attempts.values()) == [2]


def test_a_request_that_the_server_will_never_take_is_not_repeated():
    with serving(lambda prompt, attempt: 400 if "3" in prompt else None) as server:
        critiques = critic(server).critique([request(3), request(4)])
    assert "400" in critiques[0].refused
    assert critiques[1].refused is None
    assert max(server.attempts.values()) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_everything_ends_the_run(status):
    requests = [request(i) for i in range(50)]
    with (
        serving(lambda prompt, attempt: status) as server,
        pytest.raises(ServerError, match=str(status)),
    ):
        critic(server, concurrency=2).critique(requests)
    assert sum(server.attempts.values()) < 10


def test_a_redirect_is_not_followed():
    """It would carry the key to another host."""
    with serving(lambda prompt, attempt: (307, {"Location": "http://127.0.0.1:9/"})) as server:
        [critique] = critic(server).critique([request()])
    assert "307" in critique.refused
    assert sum(server.attempts.values()) == 1


def test_a_server_that_is_not_there():
    with serving() as server:
        pass
    [critique] = critic(server, retries=1).critique([request()])
    assert "connection" in critique.refused


def test_no_more_requests_at_a_time_than_allowed():
    first_three = threading.Barrier(3)

    def behave(prompt, attempt):
        if prompt.split("|")[0] in {f"What is {i}?" for i in range(3)}:
            first_three.wait(timeout=30)
        time.sleep(0.01)

    with serving(behave) as server:
        critic(server, concurrency=3, timeout=60).critique([request(i) for i in range(20)])
    assert server.most_running == 3


def test_rate_limit_spreads_the_starts(monkeypatch):
    monkeypatch.setattr("lightning_sd.critique.critics.chat_client.time.monotonic", lambda: 100.0)
    limit = RateLimit(per_minute=600)
    delays = [limit.reserve_start() for _ in range(5)]
    assert [round(delay, 1) for delay in delays] == [0.0, 0.1, 0.2, 0.3, 0.4]
    limit.pause(5)
    assert limit.reserve_start() > 4
    assert pickle.loads(pickle.dumps(limit)).per_minute == 600
    assert RateLimit().reserve_start() == 0


def test_the_server_may_ask_for_a_pause():
    def behave(prompt, attempt):
        return (429, {"Retry-After": "0.4"}) if attempt == 1 else None

    with serving(behave) as server:
        start = time.monotonic()
        [critique] = critic(server).critique([request()])
    assert critique.refused is None
    assert time.monotonic() - start >= 0.4


def test_200_requests_through_a_bad_line(tmp_path):
    """Drops, 429, 500, slow, half, bad JSON: all are cached or listed, none lost, none twice."""
    chance = random.Random(0)
    lock = threading.Lock()
    hopeless = {f"What is {i}?|wrong" for i in range(0, 200, 20)}

    def behave(prompt, attempt):
        with lock:
            if prompt in hopeless or chance.random() < 0.4:
                return chance.choice(FAULTS)
        return None

    requests = [request(i) for i in range(200)]
    with serving(behave) as server:
        service = CritiqueService(
            critic(server, concurrency=16, retries=6), CritiqueCache(tmp_path)
        )
        report = prefill(service, requests)
        cache = service.cache
        failures = dict(report.failed)
        keys = compute_keys(service.critic.identity(), requests)
        there = cache.get_many(keys)
        cached = {r.question.id for r, key in zip(requests, keys, strict=True) if key in there}
        assert len(cache) == len(cached) == 200 - len(failures)
        assert cached | set(failures) == {r.question.id for r in requests}
        assert cached.isdisjoint(failures)
        assert all(reason.startswith("failed: ") for reason in failures.values())
        assert {str(i) for i in range(0, 200, 20)} <= set(failures)
        counts = service.pop_counters()
        assert counts["critique_failed"] == len(failures)

        before = sum(server.attempts.values())
        hopeless.clear()
        again = prefill(service, requests)
        assert sum(again.cases.values()) == 200 - len(again.failed)
        assert service.pop_counters()["critique_hits"] == len(cached)
        assert sum(server.attempts.values()) - before < 7 * len(failures) + 1


def test_what_the_server_said_before_the_run_was_stopped_is_kept(tmp_path):
    def behave(prompt, attempt):
        time.sleep(0.02)
        return 401 if prompt.startswith("What is 30?") else None

    with serving(behave) as server:
        service = CritiqueService(critic(server, concurrency=2), CritiqueCache(tmp_path))
        with pytest.raises(ServerError):
            service.ask([request(i) for i in range(40)])
    assert 25 <= len(service.cache) <= 31


def test_identity_tells_servers_apart_unless_a_revision_does():
    def key(url, **options):
        return compute_key(ServerCritic("m", url, **options).identity(), request())

    a, b = "http://a/v1", "http://b/v1"
    assert key(a) != key(b)
    assert key(a, revision="1") == key(b, revision="1")
    assert key(a, concurrency=3, timeout=4, retries=1, api_key_env="KEY") == key(a)
    others = [
        key(a),
        key(a, revision="1"),
        key(a, max_new_tokens=5),
        key(a, prompt=PROMPT),
        key(a, include_reference=False),
        key(a, body={"top_k": 1}),
        compute_key(ServerCritic("n", a).identity(), request()),
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "http://host:port"),
        ({"url": "http://me:secret@host/v1"}, "password"),
        ({"url": "http://host/v1?key=secret"}, "password"),
        ({"url": "http://host/v1#secret"}, "password"),
        ({"url": "me:secret@host/v1"}, "password"),
        ({"url": "ftp://me:secret@host/v1"}, "password"),
        ({"url": "http://me:secret/v1"}, "http://host:port"),
        ({"url": "http://[secret/v1"}, "http://host:port"),
        ({"url": "http://:80/v1"}, "http://host:port"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"retries": -1}, "retries=-1"),
        ({"requests_per_minute": 0}, "requests_per_minute=0"),
        ({"prompt": "Go!"}, "question"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        ServerCritic(**{"model": "m", "url": "http://host/v1", **options})
    assert "secret" not in str(caught.value)


def test_a_missing_key_is_told_before_training(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="NO_SUCH_KEY"):
        ServerCritic("m", "http://host/v1", api_key_env="NO_SUCH_KEY").setup(NumberTask())


KEY = "sk-0123456789-very-secret"


def test_the_key_is_sent_and_never_kept(tmp_path, monkeypatch, caplog, capsys):
    """Trains, fails, logs, checkpoints and caches; then looks for the key everywhere."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.chdir(tmp_path)

    def behave(prompt, attempt):  # the server quotes the key in its errors
        return 500 if attempt == 1 else 400 if "3" in prompt else None

    with serving(behave) as server:
        one = critic(server, api_key_env="MY_KEY", retries=1)
        data = CritiqueDataModule(NumberTask(), one, "cache", 4, on_refusal="retry")
        logger = pl.loggers.CSVLogger("logs")
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=logger,
            log_every_n_steps=1,
            enable_progress_bar=False,
            default_root_dir=".",
        )
        trainer.fit(Student(), data)
        trainer.save_checkpoint("last.ckpt")
        [critique] = one.critique([request(3)])
        assert "***" in critique.refused
        assert KEY not in critique.refused
        described = f"{vars(one)} {one.identity()} {dict(data.hparams)}"
    assert {h["Authorization"] for h in server.headers_seen} == {f"Bearer {KEY}"}
    assert KEY not in described
    assert KEY not in caplog.text
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"critiques.sqlite", "last.ckpt", "metrics.csv"} <= names
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert "MY_KEY" in str(torch.load("last.ckpt", weights_only=True))  # only its name


def test_a_fatal_error_does_not_tell_the_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with (
        serving(lambda prompt, attempt: 401) as server,
        pytest.raises(ServerError) as caught,
    ):
        critic(server, api_key_env="MY_KEY").critique([request()])
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_waiting_requests_give_up_when_the_run_ends():
    stop = threading.Event()
    client = ChatClient("http://127.0.0.1:9/v1", retries=100, backoff=60, stop=stop)
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(ServerError, match="stopped"):
        client.chat({})
