"""The examples run, and do what they say."""

from __future__ import annotations

import runpy

import torch

from lightning_sd.cli.main import main
from tests.docs.blocks import ROOT

EXAMPLES = ROOT / "examples"


def test_own_data_trains_from_yaml_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    small = ["--trainer.max_steps=1", "--model.init_args.samples=2", "--trainer.callbacks=null"]
    cli = main(["fit", "--config", "examples/own_data.yaml", *small])
    assert cli.trainer.global_step == 1
    assert type(cli.trainer.lightning_module.teacher_context).__name__ == "ReferenceSolution"
    assert cli.trainer.datamodule.task.path == "examples/sums.jsonl"


def test_python_api_trains_and_measures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    logged = runpy.run_path(str(EXAMPLES / "python_api.py"))["main"](max_steps=1)
    assert 0 <= logged["val/avg@4"] <= 1
    assert "finished rollouts: " in capsys.readouterr().out


def test_plain_module_learns_from_our_context_and_loss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = runpy.run_path(str(EXAMPLES / "plain_module.py"))
    before = {name: p.clone() for name, p in namespace["PlainModule"]().named_parameters()}
    module = namespace["main"](max_steps=2)
    assert type(module.teacher_context).__name__ == "ReferenceSolution"
    changed = [not torch.equal(p.cpu(), before[n]) for n, p in module.named_parameters()]
    assert any(changed)
    assert not type(module).__module__.startswith("lightning_sd")


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 90, path
