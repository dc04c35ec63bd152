"""``python -m lightning_sd critique stats`` and the other commands for critique caches."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

from lightning_sd.cli.errors import OneLineErrors, suggest
from lightning_sd.cli.push_critiques import push_critiques
from lightning_sd.critique.cache.filters import filter_attempts
from lightning_sd.critique.cache.maintenance import (
    export_cache,
    import_cache,
    merge_caches,
    summarize_cache,
    verify_cache,
)
from lightning_sd.critique.cache.server import serve_cache

COMMANDS = {
    "stats": summarize_cache,
    "verify": verify_cache,
    "merge": merge_caches,
    "export": export_cache,
    "import": import_cache,
    "filter": filter_attempts,
    "push": push_critiques,
    "serve": serve_cache,
}


def main(args: Sequence[str]) -> None:
    """Run one command and print its result as JSON.

    Args:
        args: The command's name and its options.

    Raises:
        SystemExit: With status 1 if ``verify`` found a fault, with status 2 if the arguments are
            wrong.
    """
    from jsonargparse import ArgumentParser, auto_cli

    class Parser(OneLineErrors, ArgumentParser):  # type: ignore[misc]
        """Prints errors in one line."""

    if args[0] not in COMMANDS:
        hint, commands = suggest(args[0], COMMANDS), ", ".join(COMMANDS)
        text = f"error: critique {args[0]}: there is no such command{hint} Commands: {commands}."
        print(text, file=sys.stderr)
        sys.exit(2)
    program = "python -m lightning_sd critique"
    try:
        result: Any = auto_cli(
            COMMANDS, args=list(args), prog=program, as_positional=True, parser_class=Parser
        )
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    plain = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    print(json.dumps(plain, indent=1, default=str))
    if args[0] == "verify" and result:
        sys.exit(1)
