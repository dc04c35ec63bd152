"""The architecture page, its picture, the import contract and the folders agree."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT
from tests.docs.commands import tomllib

CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
(LAYERS,) = [c["layers"] for c in CONTRACT["contracts"] if c["type"] == "layers"]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_layers_are_the_folders_and_files():
    package = ROOT / "lightning_sd"
    found = {path.stem for path in package.iterdir() if path.suffix in ("", ".py")}
    assert set(LAYERS) == found - {"__init__", "__main__", "__pycache__", "py"}
    assert len([path for path in package.iterdir() if path.name != "__pycache__"]) <= 23


def test_page_lists_the_layers_in_order():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == LAYERS


def test_picture_shows_the_layers_in_order():
    picture = (ROOT / "docs" / "layers.svg").read_text()
    assert "layers.svg" in PAGE
    assert re.findall(r'monospace">(\w+)</text>', picture) == LAYERS
