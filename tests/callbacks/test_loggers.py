"""Sample tables in the real loggers, all offline, written and read back."""

from __future__ import annotations

import json
from html import unescape

import pytest
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_sd import ReferenceSolution, SampleTable
from lightning_sd.callbacks.tables import format_markdown
from tests.stubs import LabData, module, trainer

HOSTILE = "a|b\n<step_1>`x`*y*</step_1> [l](u) $z$ & #h"


@pytest.fixture
def fit(make_llama, tokenizer, tmp_path):
    def call(logger):
        table = SampleTable(every_n_steps=2, rows=2)
        run = trainer(
            *(tmp_path, ReferenceSolution(), table),
            max_steps=2,
            logger=logger,
            log_every_n_steps=1,
        )
        run.fit(module(make_llama(), tokenizer), datamodule=LabData())
        logger.finalize("success")

    return call


def test_markdown_shows_any_text_as_it_is():
    header, line, row = format_markdown(["one", "two"], [[HOSTILE, ""]]).splitlines()
    assert (header, line) == ("| one | two |", "|---|---|")
    cells = row.strip("| ").split(" | ")
    assert unescape(cells[0].rstrip(" |").replace("<br>", "\n")) == HOSTILE
    assert not set("*`[]") & set(row)


def test_tensorboard(fit, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorBoardLogger(tmp_path, "tb")
    fit(logger)
    events = accumulator.EventAccumulator(logger.log_dir).Reload()
    (tag,) = [tag for tag in events.Tags()["tensors"] if tag.startswith("rollouts")]
    (event,) = events.Tensors(tag)
    text = event.tensor_proto.string_val[0].decode()
    assert event.step == 2
    assert text.splitlines()[1] == "|---|---|---|---|---|"
    assert len(text.splitlines()) == 2 + 2
    assert "train/loss" in events.Tags()["scalars"]


def test_wandb_offline(fit, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="p")
    fit(logger)
    import wandb

    wandb.finish()
    (table,) = tmp_path.rglob("*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["question", "attempt", "teacher sees", "reward", "advantage"]
    assert len(content["data"]) == 2
    assert list(tmp_path.rglob("run-*.wandb"))


def test_mlflow_file_store(fit, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger("e", tracking_uri=f"file:{tmp_path / 'mlruns'}")
    fit(logger)
    client = mlflow.MlflowClient(f"file:{tmp_path / 'mlruns'}")
    assert client.get_metric_history(logger.run_id, "train/loss")
    (found,) = (tmp_path / "mlruns").rglob("step_000002.md")
    assert found.read_text().startswith("| question | attempt |")


def test_trackio_local(fit, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    from lightning_sd import TrackioLogger

    for part in (sqlite_storage, utils):
        if hasattr(part, "TRACKIO_DIR"):
            monkeypatch.setattr(part, "TRACKIO_DIR", tmp_path)
    fit(TrackioLogger(project="p", name="n"))
    logs = sqlite_storage.SQLiteStorage.get_logs("p", "n")
    tables = [entry for entry in logs if "rollouts" in entry]
    assert len(tables) == 1
    assert tables[0]["step"] == 2
    assert len(tables[0]["rollouts"]["_value"]) == 2
    assert any("train/loss" in entry for entry in logs)


def test_trackio_is_named_if_it_is_missing(monkeypatch):
    import importlib.util

    from lightning_sd import TrackioLogger

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "trackio" else real(name, *a)
    )
    with pytest.raises(ImportError, match=r"lightning_sd\[trackio\]"):
        TrackioLogger()


@pytest.mark.slow
def test_loggers_by_yaml(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import sqlite_storage, utils

    from lightning_sd.cli.main import main
    from tests.cli.test_configs import CONFIGS, TINY

    for part in (sqlite_storage, utils):
        if hasattr(part, "TRACKIO_DIR"):
            monkeypatch.setattr(part, "TRACKIO_DIR", tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.yaml").write_text(
        "trainer: {logger: {class_path: TrackioLogger, init_args: {project: y, name: n}}}\n"
    )
    words = [word for word in TINY if "logger" not in word]
    quick = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), *words]
    main([*quick, "--config", "log.yaml", "--trainer.log_every_n_steps=1"])
    assert sqlite_storage.SQLiteStorage.get_logs("y", "n")
