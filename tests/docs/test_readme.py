"""The README's two commands are those of CI, its links lead somewhere, its words are plain."""

from __future__ import annotations

import re

from tests.docs.blocks import PAGES, ROOT, read_blocks, write_files

README = (ROOT / "README.md").read_text()
DIALECT = re.compile(r"\b(anew|likewise|nobody)\b", re.IGNORECASE)
WORDS = ROOT / "lightning_sd"


def test_commands_are_what_ci_runs():
    first, second, *_ = (block.body for block in read_blocks(ROOT / "README.md", "bash"))
    run = (ROOT / ".ci" / "run").read_text()
    assert "pip install torch==2.13.0 -e . && python -m lightning_sd fit --config" in first
    assert 'pip install torch==2.13.0 -e ".[dev]" && make check' in second
    assert 'torch==2.13.0 -e ".[dev]"' in run
    assert "make check-all" in run


def test_links_lead_somewhere():
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"configs/[\w.]+\.yaml", README):
        assert (ROOT / path).exists(), path


def test_every_config_is_named_on_a_page():
    text = "\n".join(page.read_text() for page in PAGES)
    for config in (ROOT / "configs").glob("*.yaml"):
        assert config.stem in text, config


def test_words_are_plain():
    for path in [*PAGES, *WORDS.rglob("*.py"), *(ROOT / "docs").rglob("*.svg")]:
        found = DIALECT.search(path.read_text())
        assert found is None, f"{path.relative_to(ROOT)}: {found[0]}"


def test_the_page_on_new_methods_is_short(tmp_path):
    page = ROOT / "docs" / "add_a_method.md"
    write_files(page, tmp_path)
    assert sum(len(path.read_text().splitlines()) for path in tmp_path.iterdir()) < 40
