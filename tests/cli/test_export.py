"""``export`` and ``critique push``, with a stand-in for the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import huggingface_hub
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_sd.cli.main import main
from lightning_sd.cli.run import run
from tests.cli.test_main import QUICK, SAVING

LAST = "ckpt/last.ckpt"
IDS = torch.arange(5, 25).unsqueeze(0)
MEASURED = ["--trainer.callbacks+=BeforeAfter", "--trainer.callbacks.path=both.json"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(monkeypatch):
    """A hub that keeps what it is given in the folder ``hub``."""
    calls = []

    class Hub:
        def create_repo(self, repo_id, **options):
            calls.append(options)
            assert options["exist_ok"]
            kind = {"model": "", "dataset": "datasets/"}[options["repo_type"]]
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{kind}{repo_id}")

        def upload_folder(self, folder_path, repo_id, repo_type):
            assert repo_type == calls[-1]["repo_type"]
            shutil.copytree(folder_path, Path("hub") / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return calls


def read_card(folder):
    """The front matter and the text of a card."""
    _, front, text = (Path(folder) / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def show_logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def test_a_checkpoint_becomes_a_folder_with_a_card(hub, capsys):
    cli = main(["fit", *QUICK, *SAVING, *MEASURED, "--model.eval_samples=2"])
    words = ["export", "--ckpt_path", LAST, "--push_to_hub", "me/solver", "--private"]
    run([*words, "--out", "hf"])
    assert hub == [{"repo_type": "model", "private": True, "exist_ok": True}]
    assert "https://huggingface.co/me/solver" in capsys.readouterr().out
    model = AutoModelForCausalLM.from_pretrained("hub/me/solver")
    AutoTokenizer.from_pretrained("hub/me/solver")
    torch.testing.assert_close(show_logits(model), show_logits(cli.model.student))
    front, text = read_card("hub/me/solver")
    assert front["library_name"] == "transformers"
    assert "base_model" not in front  # it is not on the hub
    for expected in (
        "# me/solver",
        "class_path: lightning_sd.StepAlignedCritique",
        "kind: forward_kl",
        "class_path: lightning_sd.ArithmeticTask",
        "class_path: lightning_sd.RuleCritic",
        "lr: 0.001",
        "max_steps: 1",
        f"torch {torch.__version__}",
        "| Avg@k, % | ",
    ):
        assert expected in text
    assert "out/quickstart" not in text  # paths are not published


def test_a_measurement_of_another_step_is_not_the_checkpoints():
    main(["fit", *QUICK, *SAVING, *MEASURED, "--model.eval_samples=2"])
    measured = json.loads(Path("both.json").read_text())
    Path("both.json").write_text(json.dumps({**measured, "steps": 7}))
    run(["export", "--ckpt_path", LAST, "--out", "hf"])
    assert "No held-out measurement" in read_card("hf")[1]


def test_an_adapter_is_alone_or_merged():
    from peft import AutoPeftModelForCausalLM

    rank = ["--model.model.lora=LoRA", "--model.model.lora.r=2", "--model.optimizer.lr=0.1"]
    cli = main(["fit", *QUICK, *SAVING, *rank])
    expected = show_logits(cli.model.student)
    run(["export", "--ckpt_path", LAST, "--out", "adapter"])
    run(["export", "--ckpt_path", LAST, "--out", "merged", "--merge"])
    adapter = AutoPeftModelForCausalLM.from_pretrained("adapter")
    torch.testing.assert_close(show_logits(adapter), expected)
    merged = AutoModelForCausalLM.from_pretrained("merged")
    torch.testing.assert_close(show_logits(merged), expected, rtol=1e-4, atol=1e-4)
    assert not Path("merged/adapter_config.json").exists()
    assert read_card("adapter")[0]["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM" in read_card("adapter")[1]
    assert "AutoPeftModelForCausalLM" not in read_card("merged")[1]


@pytest.mark.parametrize("name", ["ckpt/lst.ckpt", "last"])
def test_a_missing_checkpoint_is_one_line(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(["export", "--ckpt_path", name])
    assert stopped.value.code == 2
    assert f"ckpt_path={name}: there is no such file" in capsys.readouterr().err


def test_critiques_become_a_data_set_with_a_card(hub, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    run(["critique", *QUICK, "--model.eval_samples=2"])
    capsys.readouterr()
    run(["critique", "push", "out/quickstart/critiques", "me/critiques"])
    assert "https://huggingface.co/datasets/me/critiques" in capsys.readouterr().out
    assert hub == [{"repo_type": "dataset", "private": False, "exist_ok": True}]
    rows = datasets.load_dataset("hub/me/critiques", split="train")
    _, text = read_card("hub/me/critiques")
    assert f"{len(rows)} critiques of attempts" in text
    assert '"task": "lightning_sd.lab.arithmetic.ArithmeticTask"' in text
    assert set(rows.column_names) >= {"question", "attempt", "critique", "case"}
    parquet = "hub/me/critiques/critiques.parquet"
    capsys.readouterr()
    run(["critique", "import", "again", parquet])
    assert int(capsys.readouterr().out) == len(rows)


def test_a_model_in_memory_must_be_named(capsys):
    cli = main(["fit", *QUICK, *SAVING])
    saved = torch.load(LAST, weights_only=True)
    saved["hyper_parameters"].pop("model")
    torch.save(saved, "memory.ckpt")
    with pytest.raises(SystemExit):
        run(["export", "--ckpt_path", "memory.ckpt"])
    assert "name it with --model" in capsys.readouterr().err
    named = ["--model", "package:lightning_sd/lab/solver"]
    run(["export", "--ckpt_path", "memory.ckpt", "--out", "hf", *named])
    model = AutoModelForCausalLM.from_pretrained("hf")
    torch.testing.assert_close(show_logits(model), show_logits(cli.model.student))
