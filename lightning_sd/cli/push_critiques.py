"""``lightning-sd critique push``: critiques as a data set with a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning_sd.cli.hub import push_folder
from lightning_sd.critique.cache.maintenance import export_cache, summarize_cache
from lightning_sd.text.cleaning import hide_credentials

_FILE = "critiques.parquet"
_CARD = """---
configs:
- config_name: default
  data_files: {file}
tags:
- lightning_sd
- critiques
---

# {name}

{critiques} critiques of attempts at {questions} questions, written with
[lightning_sd](https://pypi.org/project/lightning-sd/).

| usable critiques by case | number |
|---|---|
{cases}

Refused critiques: {refused}.

Each row holds a question with its reference and answer, an attempt with its verdict, the critique,
and the indices of the steps that the critique copied, changed and added.

```python
from datasets import load_dataset

critiques = load_dataset("{name}", split="train")
```

To train with them, download `{file}` and run `lightning-sd critique import CACHE {file}`.

Critics:

```json
{critics}
```
"""


def push_critiques(path: str, repo_id: str, private: bool = False) -> str:
    """Upload a cache to the Hugging Face hub as a data set with a card.

    Everything in the cache is uploaded: questions, references, attempts and critiques.

    Args:
        path: Folder or file of the cache.
        repo_id: ``USER/NAME``.
        private: Create the repository as a private one; an existing one is not changed.

    Returns:
        Address of the data set.

    Raises:
        FileNotFoundError: There is no cache at ``path``.
        OSError: There is no login (``hf auth login``), no permission, or no connection.
    """
    with TemporaryDirectory() as folder:
        export_cache(path, Path(folder) / _FILE)
        card = format_card(repo_id, summarize_cache(path))
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        return push_folder(folder, repo_id, "dataset", private=private)


def format_card(name: str, summary: Mapping[str, Any]) -> str:
    """Format the card of a data set of critiques.

    Args:
        name: ``USER/NAME``.
        summary: What :func:`~lightning_sd.critique.cache.maintenance.summarize_cache` returns.
    """
    refused = ", ".join(f"{number} {why}" for why, number in summary["refused"].items())
    card = _CARD.format(
        name=name,
        file=_FILE,
        critiques=summary["critiques"],
        questions=summary["questions"],
        cases="\n".join(f"| {case} | {n} |" for case, n in summary["cases"].items()),
        refused=refused or "none",
        critics=json.dumps(summary["critics"], indent=1),
    )
    return hide_credentials(card)
