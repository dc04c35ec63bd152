"""Every public name has a place in the API reference, and the site builds without warnings."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys

import pytest

import lightning_sd
from tests.docs.blocks import ROOT

API = ROOT / "docs" / "api"
ROOMS = [
    room
    for page in API.glob("*.md")
    for room in re.findall(r"^<!-- public names: ([\w.]+) -->$", page.read_text(), re.MULTILINE)
]


def load_hooks():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def test_every_public_name_is_on_a_page():
    hooks = load_hooks()
    directives = "\n".join(hooks.list_public_names(room) for room in ROOMS)
    listed = {path.rsplit(".", 1)[1]: path for path in re.findall(r"::: ([\w.]+)", directives)}
    for name in set(lightning_sd.__all__) - {"__version__"}:
        module, _ = listed[name].rsplit(".", 1)
        assert getattr(importlib.import_module(module), name) is getattr(lightning_sd, name)


def test_every_api_page_is_in_the_index():
    index = (API / "index.md").read_text()
    for page in API.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path):
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
