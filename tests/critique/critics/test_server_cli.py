"""A critic on a server, described in YAML alone: from the command line to the cache."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from lightning_sd.cli.main import main
from lightning_sd.critique.cache.cache import CritiqueCache
from tests.cli.test_configs import CONFIGS, TINY
from tests.critique.critics.fault_server import serving

KEY = "sk-cli-0123456789-very-secret"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRITIC_KEY", KEY)


def config(server, **options):
    """A YAML file that holds only the critic, to be put behind a full config."""
    settings = {
        "model": "Qwen/Qwen3-32B",
        "url": server.url,
        "api_key_env": "CRITIC_KEY",
        "revision": "main, fp8",
        "concurrency": 4,
        "retries": 1,
        "timeout": 10.0,
        "requests_per_minute": 60000.0,
        "body": {"top_p": 1.0, "chat_template_kwargs": {"enable_thinking": False}},
        **options,
    }
    data = {"critic": {"class_path": "ServerCritic", "init_args": settings}, "cache_dir": "cache"}
    Path("critic.yaml").write_text(yaml.safe_dump({"data": {"init_args": data}}))
    return ["--config", str(CONFIGS / "quickstart.yaml"), "--config", "critic.yaml", *TINY]


def critique(arguments):
    main(["critique", *arguments, "--model.init_args.eval_samples=2", "--out=attempts.jsonl"])
    return [json.loads(line) for line in Path("attempts.jsonl").read_text().splitlines()]


def test_critique_asks_the_server_and_a_second_run_does_not(capsys):
    with serving() as server:
        arguments = config(server)
        rows = critique(arguments)
        asked = len(server.bodies)
        again = critique(arguments)
        assert len(server.bodies) == asked
    assert len(rows) == 4 * 2
    assert all(row["critique"] and row["refused"] is None for row in rows)
    assert [row["critique"] for row in again] == [row["critique"] for row in rows]
    # The same attempt of the same question is asked about once.
    assert (
        asked == len({(row["id"], row["attempt"]) for row in rows}) == len(CritiqueCache("cache"))
    )
    for body in server.bodies:
        assert (body["model"], body["temperature"]) == ("Qwen/Qwen3-32B", 0)
        assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert {headers["Authorization"] for headers in server.headers_seen} == {f"Bearer {KEY}"}
    assert KEY not in "".join(capsys.readouterr())
    assert not [p for p in Path().rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]


def test_what_the_server_did_not_answer_is_listed_and_asked_again():
    with serving(lambda prompt, attempt: 500 if attempt <= 2 else None) as server:
        arguments = config(server)
        rows = critique(arguments)
        assert all("500" in row["refused"] for row in rows)
        assert len(CritiqueCache("cache")) == 0
        assert all(row["refused"] is None for row in critique(arguments))


def test_training_goes_on_the_servers_critiques():
    with serving() as server:
        saving = ["--trainer.enable_checkpointing=true", "--trainer.callbacks=ModelCheckpoint"]
        saving += ["--trainer.callbacks.dirpath=ckpt", "--trainer.callbacks.save_last=true"]
        cli = main(["fit", *config(server), *saving])
        assert server.bodies
    assert cli.trainer.callback_metrics["train/loss"].isfinite()
    assert cli.trainer.callback_metrics["train/critique_failed"] == 0
    saved = torch.load("ckpt/last.ckpt", weights_only=True)
    assert KEY not in str(saved)
    assert "CRITIC_KEY" in str(saved["datamodule_hyper_parameters"])


def test_a_key_that_is_not_set_is_told_before_anything_is_sampled(monkeypatch):
    monkeypatch.delenv("CRITIC_KEY")
    with serving() as server:
        with pytest.raises(ValueError, match="CRITIC_KEY"):
            critique(config(server))
        assert not server.bodies


def test_a_setting_out_of_range_names_itself():
    with serving() as server, pytest.raises(ValueError, match="concurrency=0: must be above 0"):
        main(["critique", *config(server, concurrency=0)])
