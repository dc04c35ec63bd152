"""Every fenced block of the README and the documentation is run or parsed."""

from __future__ import annotations

import csv
import json

import pytest
import yaml

from tests.cli.test_configs import CONFIGS, TINY, printed
from tests.docs.blocks import PAGES, ROOT, all_blocks, read_blocks, write_files
from tests.docs.commands import check_command, split_commands

KNOWN = {"python", "yaml", "bash", "json", "jsonl", "csv", "text", "toml"}
WITH_PYTHON = [page for page in PAGES if read_blocks(page, "python")]


def page_name(page):
    return str(page.relative_to(ROOT))


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's folder: the configs are there, and modules in it can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("configs", "examples", "benchmarks"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_every_block_names_a_language():
    for page in PAGES:
        for block in read_blocks(page):
            assert block.language in KNOWN, f"{block.name}: {block.info!r}"


@pytest.mark.parametrize("page", WITH_PYTHON, ids=page_name)
def test_python_runs(page, reader):
    write_files(page, reader)
    namespace = {"__name__": "__docs__"}
    for block in read_blocks(page, "python"):
        body = f"import {block.title.removesuffix('.py')}" if block.title else block.body
        code = "\n" * block.line + body  # so that a traceback shows the page's line
        exec(compile(code, block.name, "exec"), namespace)


@pytest.mark.parametrize("block", all_blocks("yaml"), ids=lambda block: block.name)
def test_yaml_parses(block, reader):
    write_files(block.page, reader)
    config = yaml.safe_load(block.body)
    if not {"model", "data", "trainer", "teacher_context"} & set(config):
        return  # a file of another kind, such as a workflow
    (reader / "block.yaml").write_text(block.body)
    base = [] if {"model", "data", "trainer"} <= set(config) else [CONFIGS / "quickstart.yaml"]
    files = [word for file in (*base, "block.yaml") for word in ("--config", str(file))]
    assert printed(["fit", *files])["model"]


@pytest.mark.parametrize("block", all_blocks("bash"), ids=lambda block: block.name)
def test_commands_are_right(block, reader):
    write_files(block.page, reader)
    for words in split_commands(block.body):
        check_command(words)


@pytest.mark.parametrize("block", all_blocks("json", "jsonl", "csv"), ids=lambda block: block.name)
def test_data_parses(block):
    if block.language == "csv":
        rows = list(csv.DictReader(block.body.splitlines()))
        assert rows
        assert all(None not in row and None not in row.values() for row in rows)
    else:
        for text in [block.body] if block.language == "json" else block.body.splitlines():
            json.loads(text)


def test_tiny_names_options_that_exist():
    assert printed(["fit", "--config", str(CONFIGS / "quickstart.yaml"), *TINY])
