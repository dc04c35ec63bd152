"""MkDocs hooks: pages that live outside ``docs/``, and the API pages' list of public names."""

from __future__ import annotations

import importlib
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/**/*.md")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)((?:#[^)\s]*)?)\)")
PUBLIC = re.compile(r"^<!-- public names: ([\w.]+) -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside ``docs/``, and every file that a page links to."""
    pages = [path for pattern in OUTSIDE for path in sorted(ROOT.glob(pattern))]
    for path in pages:
        _add(files, config, path.relative_to(ROOT).as_posix())
    for file in [file for file in files if file.src_uri.endswith(".md")]:
        for link in LINK.finditer(file.content_string):
            source = _find_source(_to_source(file.src_uri), link[3])
            if source is not None and (ROOT / source).is_file():
                _add(files, config, source)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between source files into links between pages; list the public names."""
    uri = page.file.src_uri

    def rewrite(link: re.Match[str]) -> str:
        mark, text, path, anchor = link.groups()
        source = _find_source(_to_source(uri), path)
        if source is None:
            return link[0]
        if (ROOT / source).is_dir():  # a folder without a page of its own
            return text
        target = os.path.relpath(_to_uri(source), posixpath.dirname(uri) or ".")
        return f"{mark}[{text}]({target}{anchor})"

    return PUBLIC.sub(lambda found: list_public_names(found[1]), LINK.sub(rewrite, markdown))


def list_public_names(room: str) -> str:
    """Write one mkdocstrings directive per public name of a room of the package.

    Args:
        room: Full name of a module: one that ``lightning_sd`` exports names from, or any other
            with an ``__all__``.
    """
    import lightning_sd

    top = lightning_sd._HOMES.get(room, ())
    names = dict.fromkeys((*top, *getattr(importlib.import_module(room), "__all__", ())))
    return "\n\n".join(f"::: {room}.{name}" for name in names)


def _add(files: Files, config: Any, source: str) -> None:
    uri = _to_uri(source)
    if files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))


def _find_source(page: str, link: str) -> str | None:
    """Path in the repository that a link of a source file leads to; None: no such file."""
    source = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if (ROOT / source / "README.md").is_file():
        source = f"{source}/README.md"
    return source if (ROOT / source).exists() else None


def _to_source(uri: str) -> str:
    return f"docs/{uri}" if (ROOT / "docs" / uri).exists() else uri


def _to_uri(source: str) -> str:
    return "index.md" if source == "README.md" else source.removeprefix("docs/")
