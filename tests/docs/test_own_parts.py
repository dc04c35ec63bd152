"""The guides for parts of one's own: each example trains from its YAML, and is short.

From Python the same examples run in ``test_pages``.
"""

from __future__ import annotations

import sys

import pytest
import yaml

from lightning_sd.cli.main import main
from tests.cli.test_configs import CONFIGS
from tests.docs.blocks import ROOT, read_blocks, write_files

GUIDES = sorted((ROOT / "docs" / "own").glob("*.md"))
SMALL = {
    "trainer": {
        "max_steps": 1,
        "logger": False,
        "callbacks": [],
        "limit_val_batches": 1,
        "val_check_interval": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "model": {"init_args": {"samples": 2, "eval_samples": 2}},
    "data": {"init_args": {"batch_size": 2, "eval_batch_size": 4, "cache_dir": "critiques"}},
}
SIZES = {"train_size": 4, "val_size": 2, "test_size": 2}


def merge(config, changes):
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            merge(config[key], value)
        else:
            config[key] = value
    return config


def fragments():
    """The YAML files of the guides that use a part written there, or data written there."""
    for guide in GUIDES:
        blocks = [block for block in read_blocks(guide) if block.title]
        own = [block.title for block in blocks if block.language in ("python", "jsonl")]
        for block in blocks:
            if block.language == "yaml":
                for title in own:
                    name = title.removesuffix("py") if title.endswith(".py") else title
                    if name in block.body:
                        yield pytest.param(guide, block, title, id=f"{guide.stem}-{block.title}")


@pytest.mark.parametrize(("guide", "block", "title"), fragments())
def test_example_trains_from_yaml(guide, block, title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_files(guide, tmp_path)
    config = merge(yaml.safe_load((CONFIGS / "quickstart.yaml").read_text()), SMALL)
    config["data"]["init_args"]["task"]["init_args"] = SIZES
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    cli = main(["fit", "--config", "small.yaml", "--config", block.title])
    module, data = cli.trainer.lightning_module, cli.trainer.datamodule
    assert cli.trainer.global_step == 1
    weights = getattr(module.objective, "token_weights", ())
    parts = [module.objective, module.teacher, module.sampler, module.teacher_context, *weights]
    parts += [data.task, data.critic, *cli.trainer.callbacks]
    if title.endswith(".py"):
        assert title.removesuffix(".py") in {type(part).__module__ for part in parts}
    else:
        assert title == data.task.path


def test_every_guide_has_an_example():
    assert {param.values[0].stem for param in fragments()} == {guide.stem for guide in GUIDES}


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_examples_are_short(guide):
    for block in read_blocks(guide, "python"):
        if block.title:
            assert len(block.body.splitlines()) <= 30, block.name


@pytest.fixture(autouse=True)
def _forget_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "lightning_sd" not in name and name in {block_module(g) for g in titles()}:
            del sys.modules[name]


def titles():
    return [b.title for guide in GUIDES for b in read_blocks(guide, "python") if b.title]


def block_module(title):
    return title.removesuffix(".py")
