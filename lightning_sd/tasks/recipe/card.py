"""The embedded solver's card."""
from __future__ import annotations
from pathlib import Path
from typing import Any
def write_card(out: Path, recipe: Any, report: Any, model: Any, minutes: float) -> None:
    pass
