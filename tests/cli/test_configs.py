"""Every file in ``configs/`` parses, alone or behind a full config, and the lab's also run."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from lightning_sd.cli.main import main

CONFIGS = Path(__file__).parents[2] / "configs"
# These read a model that has to be taught first: they are tested beside their methods.
TAUGHT = {"echodistill", "echodistill_onpolicy"}
ALL = [path for path in CONFIGS.glob("*.yaml") if path.stem not in TAUGHT]
DEVICES = [path for path in ALL if path.stem in ("one_gpu", "eight_gpus", "several_nodes")]
ENGINE = CONFIGS / "rollout_engine.yaml"
OVERLAYS = {*DEVICES, ENGINE}
ALL = [path for path in ALL if path not in OVERLAYS]
FULL = sorted(path for path in ALL if "trainer" in yaml.safe_load(path.open()))
METHODS = sorted(set(ALL) - set(FULL))
# Any method goes behind these; the other full configs have a method and a task of their own.
BASES = [path for path in FULL if path.stem in ("quickstart", "smollm2", "qwen3_1.7b_paper")]

TINY = [
    "--trainer.max_steps=1",
    "--trainer.max_epochs=-1",
    "--trainer.logger=false",
    "--trainer.callbacks=null",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--model.init_args.samples=2",
    "--data.init_args.batch_size=2",
    "--data.init_args.task.init_args.train_size=4",
    "--data.init_args.task.init_args.val_size=2",
    "--data.init_args.task.init_args.test_size=2",
]


@cache
def print_config(*args):
    """Return what ``--print_config`` writes; many tests compare with the same one."""
    with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as stopped:
        main([*args, "--print_config"])
    assert stopped.value.code in (0, None)
    return out.getvalue()


def printed(args):
    return yaml.safe_load(print_config(*args))


def test_there_are_full_configs_and_methods():
    assert {path.stem for path in FULL} >= {"quickstart", "smollm2", "qwen3_1.7b_paper"}
    assert {path.stem for path in METHODS} >= {"grpo", "reference", "sdpo", "sdft", "opsd", "dapo"}


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
@pytest.mark.parametrize(
    "verb", ["fit", "validate", "test", "predict", "critique", "probe", "analyze"]
)
def test_full_config_parses_under_every_verb(path, verb):
    config = printed([verb, "--config", str(path)])
    named = yaml.safe_load(path.open())["teacher_context"]["class_path"]
    assert config["teacher_context"]["class_path"] == f"lightning_sd.{named}"
    # A fixed folder, or `--ckpt_path last` would start from scratch.
    savers = [c for c in config["trainer"]["callbacks"] if "ModelCheckpoint" in c["class_path"]]
    assert savers[0]["init_args"]["dirpath"]
    assert config["trainer"]["num_sanity_val_steps"] == 0


@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
@pytest.mark.parametrize("base", BASES, ids=lambda path: path.stem)
def test_method_changes_only_its_own_lines(base, method):
    # Some bring a setting of the lab's task, and go behind no other config.
    own_task = "data" in yaml.safe_load(method.open())
    if own_task and base.stem != "quickstart":
        pytest.skip("an overlay of the lab alone")
    plain = printed(["fit", "--config", str(base)])
    changed = printed(["fit", "--config", str(base), "--config", str(method)])
    for key in ("trainer", "seed_everything", *([] if own_task else ["data"])):
        assert plain[key] == changed[key]
    own = {"objective", "samples", "teacher"}
    for name, value in plain["model"]["init_args"].items():
        assert name in own or value == changed["model"]["init_args"][name]
    assert plain["teacher_context"] != changed["teacher_context"]


@pytest.mark.parametrize("method", [None, *METHODS], ids=lambda path: getattr(path, "stem", "own"))
def test_lab_config_trains(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [CONFIGS / "quickstart.yaml", *([method] if method else [])]
    cli = main(["fit", *[word for f in files for word in ("--config", str(f))], *TINY])
    assert cli.trainer.global_step == 1
    metrics = cli.trainer.callback_metrics
    # So small a batch may have nothing to learn from, and then no loss to log.
    assert metrics["train/silent"] == 1 or metrics["train/loss"].isfinite()


@pytest.mark.parametrize("path", sorted(OVERLAYS), ids=lambda path: path.stem)
def test_devices_and_engines_keep_the_method(path):
    plain = printed(["fit", "--config", "quickstart"])
    changed = printed(["fit", "--config", "quickstart", "--config", str(path)])
    assert plain["teacher_context"] == changed["teacher_context"]
    for name in ("objective", "teacher", "samples"):
        assert plain["model"]["init_args"][name] == changed["model"]["init_args"][name]
    assert plain != changed


ON_CPU = ["--trainer.accelerator=cpu", "--trainer.precision=32-true"]


def test_one_gpu_config_trains_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli = main(["fit", "--config", "quickstart", "--config", "one_gpu", *TINY, *ON_CPU])
    assert cli.trainer.global_step == 1


SAVING = [
    "--trainer.enable_checkpointing=true",
    "--trainer.callbacks=ModelCheckpoint",
    "--trainer.callbacks.dirpath=ckpt",
    "--trainer.callbacks.save_last=true",
    "--trainer.callbacks.every_n_train_steps=1",
]


@pytest.mark.slow
def test_two_agents_go_on_from_the_checkpoint_that_rank_0_has_found(tmp_path, monkeypatch):
    """With the configs of eight GPUs and several nodes; each agent has a folder of its own."""
    folders = [tmp_path / "node0", tmp_path / "node1"]
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    one = ["--trainer.strategy=auto", "--trainer.num_nodes=1", "--data.init_args.batch_size=4"]
    configs = [w for name in ("quickstart", "eight_gpus", "several_nodes") for w in ("-c", name)]
    common = ["fit", *configs, *TINY, *SAVING, *ON_CPU, "--trainer.devices=1"]
    main([*common, *one])
    stale = folders[1] / "ckpt" / "last.ckpt"  # what the second agent would find by itself
    stale.parent.mkdir()
    stale.write_bytes(b"damaged")

    outputs = run_agents([*common, "--trainer.max_steps=2", "--ckpt_path=last_if_any"], folders)
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in outputs[1]
    saved = folders[0] / "ckpt" / "last.ckpt"
    assert torch.load(saved, weights_only=True)["global_step"] == 2
    assert stale.read_bytes() == b"damaged"
    assert list((folders[1] / "out" / "critiques").glob("*/critiques.sqlite"))


def run_agents(words, folders):
    """Run the command line under one ``torchrun`` agent per folder; return what they print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"),
        *("--rdzv_backend=static", "--master_addr=127.0.0.1", f"--master_port={port}"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent), "OMP_NUM_THREADS": "1"}
    nodes = [
        subprocess.Popen(
            [*command, f"--node_rank={rank}", "-m", "lightning_sd", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, folder in enumerate(folders)
    ]
    outputs = [node.communicate(timeout=600)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs[0][-3000:] + outputs[1][-3000:]
    return outputs
