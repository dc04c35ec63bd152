"""Which checkpoint ``ckpt_path`` means, on each rank."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy

from lightning_sd.cli.checkpoint_path import SEARCHED, find_checkpoint
from lightning_sd.cli.trainer import Trainer


@pytest.mark.parametrize("word", SEARCHED)
def test_only_rank_0_looks_for_a_checkpoint(word, tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    assert find_checkpoint(word, [ModelCheckpoint(tmp_path)], rank=1) is None


def test_every_rank_checks_a_path(tmp_path):
    assert find_checkpoint("s3://bucket/last.ckpt", [], rank=1) == "s3://bucket/last.ckpt"


def test_last_if_any_begins_a_new_run_or_goes_on(tmp_path):
    saver = ModelCheckpoint(tmp_path)
    assert find_checkpoint("last_if_any", [saver], rank=0) is None
    torch.save({"global_step": 1}, tmp_path / "last.ckpt")
    assert find_checkpoint("last_if_any", [saver], rank=0) == str(tmp_path / "last.ckpt")


@pytest.mark.parametrize(("own", "agreed"), [(None, "a.ckpt"), ("b.ckpt", "a.ckpt"), ("b", None)])
def test_a_rank_restores_what_rank_0_has_found(own, agreed, monkeypatch):
    class Rank1(SingleDeviceStrategy):
        def broadcast(self, obj, src=0):
            return agreed

        def load_checkpoint(self, checkpoint_path, weights_only=None):
            loaded.append(checkpoint_path)
            return {"state_dict": {}, "pytorch-lightning_version": "2.6.6"}

    loaded = []
    trainer = Trainer(strategy=Rank1(device="cpu"), logger=False, enable_checkpointing=False)
    trainer._checkpoint_connector.resume_start(own)
    assert loaded == ([agreed] if agreed else [])
    assert trainer.ckpt_path == agreed
