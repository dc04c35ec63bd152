"""The page for users of TRL has every option of its configs."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "coming_from_trl.md").read_text()
CONFIGS = {
    "SDPO": "experimental/sdpo/sdpo_config.py",
    "SDFT": "experimental/sdft/sdft_config.py",
    "GRPO": "trainer/grpo_config.py",
    "Distillation": "trainer/distillation_config.py",
}
ROWS = re.findall(r"^\| `(\w+)` \| ([A-Z][\w, ]+) \| (.+) \|$", PAGE, re.MULTILINE)


def test_rows_are_complete_and_unique():
    assert len(ROWS) > 90
    assert len({name for name, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_option_is_listed(config):
    spec = importlib.util.find_spec("trl")
    if spec is None:
        pytest.skip("trl is not installed")
    source = (Path(spec.origin).parent / CONFIGS[config]).read_text()
    (body,) = [node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    options = {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    listed = {name for name, of, _ in ROWS if config in of.split(", ")}
    assert sorted(options - {"_VALID_DICT_FIELDS"}) == sorted(listed)
