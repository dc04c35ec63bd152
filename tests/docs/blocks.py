"""Reads the fenced blocks of the README and the documentation pages."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    info: str
    body: str

    @property
    def language(self):
        return self.info.split(" ")[0]

    @property
    def title(self):
        found = TITLE.search(self.info)
        return found[1] if found else None

    @property
    def name(self):
        """``own/context.md:12``, as a test's id."""
        folder = ROOT if self.page.parent == ROOT else ROOT / "docs"
        return f"{self.page.relative_to(folder)}:{self.line}"


def read_blocks(page, language=None):
    text = page.read_text()
    blocks = [
        Block(page, text.count("\n", 0, found.start()) + 1, found[2], textwrap.dedent(found[3]))
        for found in FENCE.finditer(text)
    ]
    return [block for block in blocks if language in (None, block.language)]


def all_blocks(*languages):
    return [block for page in PAGES for block in read_blocks(page) if block.language in languages]


def write_files(page, folder):
    """Write a page's titled blocks as files, as a reader would."""
    for block in read_blocks(page):
        if block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body)
