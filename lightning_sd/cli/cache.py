"""``python -m lightning_sd critique stats`` and other verbs: caches, looked after."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from lightning_sd.critique.cache.filters import filter_attempts
from lightning_sd.critique.cache.maintenance import (
    export_cache,
    import_cache,
    merge_caches,
    summarize_cache,
    verify_cache,
)

VERBS = {
    "stats": summarize_cache,
    "verify": verify_cache,
    "merge": merge_caches,
    "export": export_cache,
    "import": import_cache,
    "filter": filter_attempts,
}


def main(args: Sequence[str]) -> None:
    """Run one verb and print what it found as JSON.

    Args:
        args: The verb and its options.

    Raises:
        SystemExit: With 1 if ``verify`` found something wrong, with 2 if the words are off.
    """
    from jsonargparse import auto_cli

    try:
        found: Any = auto_cli(
            VERBS, args=list(args), prog="python -m lightning_sd critique", as_positional=True
        )
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    plain = asdict(found) if is_dataclass(found) and not isinstance(found, type) else found
    print(json.dumps(plain, indent=1, default=str))
    if args[0] == "verify" and found:
        sys.exit(1)
