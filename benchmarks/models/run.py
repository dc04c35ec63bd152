"""Check every causal family of transformers, and write docs/models.md.

    python -m benchmarks.models.run [FAMILY ...]

Gemma 3n with its image encoder needs timm as well (pip install timm).

Resumable: a family and variant that is in rows.json already is skipped. With families given, only
these are checked again.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import torch

from benchmarks.models.checks import check_family
from benchmarks.models.report import write_page
from benchmarks.models.tiny import list_families

ROWS = Path(__file__).parent / "rows.json"
VARIANTS = ("untied", "tied", "lora", "dropout")


def main(families: list[str]) -> None:
    """Check families and write the page."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = json.loads(ROWS.read_text()) if ROWS.exists() else []
    rows = [row for row in rows if row["family"] not in families]
    done = {(row["family"], row["variant"]) for row in rows}
    for family in families or list_families():
        for variant in VARIANTS:
            if (family, variant) in done:
                continue
            started = time.time()
            row = check_family(family, variant)
            rows.append(row)
            ROWS.write_text(json.dumps(sorted(rows, key=_key), indent=0) + "\n")
            print(f"{time.time() - started:5.1f} s  {row}", flush=True)
            if row["result"] == "not built" and variant == VARIANTS[0]:
                break
    write_page(rows)


def _key(row: dict[str, str]) -> tuple[str, int]:
    return row["family"], VARIANTS.index(row["variant"])


if __name__ == "__main__":
    main(sys.argv[1:])
