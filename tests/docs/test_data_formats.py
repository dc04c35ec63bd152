"""Every layout on the page of data formats gives the question that the page shows."""

import json
import re

import datasets
import pytest
import yaml

from lightning_sd.tasks.layouts import LAYOUTS, recognize_layout
from lightning_sd.tasks.row_reader import RowReader
from lightning_sd.tasks.sources import load_rows
from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "data_formats.md").read_text()
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FENCE = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLUMNS = re.compile(r"^(Recognized\. )?`columns: (.*)`$", re.MULTILINE)


def read_section(title):
    row, question = (json.loads(text) for text in FENCE.findall(SECTIONS[title]))
    [(recognized, columns)] = COLUMNS.findall(SECTIONS[title])
    return row, yaml.safe_load(columns), bool(recognized), question


def read_back(row, kind, folder, monkeypatch):
    """Write a row as a file and read it as ``DatasetTask`` does."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "hf")
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    else:
        datasets.Dataset.from_list([row]).to_parquet(str(path))
    return load_rows(str(path))["train"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("title", SECTIONS)
def test_the_row_becomes_the_question(title, kind, tmp_path, monkeypatch):
    row, columns, recognized, expected = read_section(title)
    table = read_back(row, kind, tmp_path, monkeypatch)
    if recognized:
        assert recognize_layout(table.column_names, title) == columns
    reader = RowReader(columns, instruction=None)
    reader.check_columns(table.column_names, title)
    question = reader.build(table[0], "0")
    shown = {name: getattr(question, name) for name in expected}
    assert json.loads(json.dumps(shown)) == expected


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_that_is_recognized_is_on_the_page(name):
    columns = ", ".join(f"{field}: {column}" for field, column in LAYOUTS[name].items())
    assert f"| {name} | `{{{columns}}}` |" in PAGE
