"""``python -m lightning_sd critique stats`` and the other commands for critique caches."""

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

COMMANDS = {
    "stats": summarize_cache,
    "verify": verify_cache,
    "merge": merge_caches,
    "export": export_cache,
    "import": import_cache,
    "filter": filter_attempts,
}


def main(args: Sequence[str]) -> None:
    """Run one command and print its result as JSON.

    Args:
        args: The command's name and its options.

    Raises:
        SystemExit: With status 1 if ``verify`` found a fault, with status 2 if the arguments are
            wrong.
    """
    from jsonargparse import auto_cli

    try:
        result: Any = auto_cli(
            COMMANDS, args=list(args), prog="python -m lightning_sd critique", as_positional=True
        )
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    plain = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    print(json.dumps(plain, indent=1, default=str))
    if args[0] == "verify" and result:
        sys.exit(1)
