"""The examples run, and do what they say."""

from __future__ import annotations

import runpy

import pytest
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


def test_a_trainer_of_trl_has_the_loss_of_trl(tmp_path, monkeypatch):
    """TRL forms the logits of both models for all positions, and takes the same sum."""
    pytest.importorskip("trl", minversion="1.16")
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    namespace = runpy.run_path(str(EXAMPLES / "trl_trainer.py"))
    trainer = namespace["main"](str(tmp_path), max_steps=1)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    plain = type(trainer).__mro__[1]
    for number in (None, 7):
        losses = [
            kind.compute_loss(trainer, trainer.model, batch, num_items_in_batch=number)
            for kind in (type(trainer), plain)
        ]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)
        assert losses[0] > 1e-4
        grads = [torch.autograd.grad(loss, trainer.model.parameters()) for loss in losses]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 90, path
