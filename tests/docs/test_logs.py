"""The page on logs names what a run logs, no more and no less."""

from __future__ import annotations

import re

import pytest
import yaml
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from benchmarks.models.tiny import make_model
from lightning_sd import ArithmeticTask, PretrainedModel, SupervisedModule
from lightning_sd.cli.main import main
from lightning_sd.models import LoadedModel
from lightning_sd.types import QuestionBatch
from tests.cli.test_configs import CONFIGS
from tests.docs.blocks import ROOT
from tests.docs.test_own_parts import SMALL, merge

PAGE = (ROOT / "docs" / "logs.md").read_text()
ON_PAGE = set(re.findall(r"`((?:train|val|test|advantage)/[\w@/:]+)`", PAGE))
SIZES = {"train_size": 4, "val_size": 2, "test_size": 2}
RUBRICS = {
    "teacher_context": {
        "class_path": "RubricConditioned",
        "init_args": {
            "reason_first": False,
            "template": "{question} {rubric} {request}",
        },
    },
    "data": {
        "init_args": {"critic": None, "task": {"class_path": "CreatureTask", "init_args": SIZES}}
    },
}
AHEAD = {
    "trainer": {
        "callbacks": [
            {"class_path": "AdvantageAnalysis", "init_args": {"every_n_steps": 1}},
            {"class_path": "SampleAhead"},
        ]
    },
    "model": {"init_args": {"sampler": {"class_path": "tests.stubs.CopySampler"}}},
}


pytestmark = pytest.mark.slow  # four small runs


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Names that tiny runs log, with k for the number of answers."""
    folder = tmp_path_factory.mktemp("logs")
    names = set()
    for number, (base, changes) in enumerate(
        [
            ("quickstart", AHEAD),
            ("resd", {}),
            ("quickstart", RUBRICS),
        ]
    ):
        names |= run_and_collect(folder / str(number), base, changes)
    names |= run_supervised()
    return {re.sub(r"@\d+", "@k", name) for name in names}


def run_and_collect(folder, base, changes):
    folder.mkdir()
    config = merge(yaml.safe_load((CONFIGS / f"{base}.yaml").read_text()), SMALL)
    config["data"]["init_args"]["task"]["init_args"] = SIZES
    config["data"]["init_args"] |= {"cache_dir": str(folder / "critiques"), "batch_size": 4}
    config["model"]["init_args"]["samples"] = 4
    config["trainer"] |= {"val_check_interval": None, "check_val_every_n_epoch": 1}
    config["trainer"]["default_root_dir"] = str(folder)
    merge(config, changes)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    cli = main(["fit", "--config", str(path)])
    names = {*cli.trainer.logged_metrics, *cli.trainer.callback_metrics}
    return names | set(Trainer(logger=False).test(cli.model, datamodule=cli.datamodule)[0])


def run_supervised():
    """A mixture of experts whose configuration asks for the auxiliary loss."""
    questions = ArithmeticTask(train_size=2).questions("train")
    loader = DataLoader(questions, batch_size=2, collate_fn=QuestionBatch)
    trainer = Trainer(max_steps=1, logger=False, enable_checkpointing=False)
    _, tokenizer = PretrainedModel("package:lightning_sd/lab/solver").load()
    model = make_model(
        "mixtral", output_router_logits=True, vocab_size=len(tokenizer), max_position_embeddings=512
    )
    trainer.fit(SupervisedModule(LoadedModel(model, tokenizer)), loader, loader)
    return set(trainer.logged_metrics)


def test_every_logged_name_is_on_the_page(logged):
    assert sorted(logged - ON_PAGE) == []


def test_every_name_on_the_page_is_logged(logged):
    assert sorted(ON_PAGE - logged) == []


def test_tables_have_no_empty_meaning():
    for row in re.findall(r"^\| `.*$", PAGE, re.MULTILINE):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert all(cells[:3]), row
