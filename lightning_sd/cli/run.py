"""The console command ``lightning-sd``: choose what to import, and print errors in one line."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import lightning_sd
from lightning_sd.cli.help import VERBS, format_overview, format_verb

DEBUG_VARIABLE = "LIGHTNING_SD_DEBUG"
"""Environment variable that ``--debug`` sets."""
COMPLETION_VARIABLE = "JSONARGPARSE_ADD_PRINT_COMPLETION_ARGUMENT"
_TOOLS = {
    "export": "lightning_sd.cli.export",
    "rubrics": "lightning_sd.cli.rubrics",
    "configs": "lightning_sd.cli.shipped",
    "init": "lightning_sd.cli.shipped",
}
"""Modules of the commands that are not verbs of Lightning's trainer."""


def run(args: Sequence[str]) -> None:
    """Run the command line.

    Args:
        args: Words after the program's name.

    Raises:
        SystemExit: With status 2 for wrong settings, 1 for other failures.
    """
    # Large tensors on huge pages: a CPU step of a real model then has a third of the page faults.
    # torch reads this once, before its first large allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # Progress bars of transformers and datasets only where something takes longer than a second.
    os.environ.setdefault("TQDM_DELAY", "1")
    # From inside Lightning and transformers, about code of theirs.
    for message in (".*LeafSpec.*", ".*is_gradient_checkpointing.*"):
        warnings.filterwarnings("ignore", message=message)
    # Lightning's advertisement of its logger. Ours are set by `trainer.logger`.
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "LitLogger" not in record.getMessage()
    )
    words = [word for word in args if word != "--debug"]
    if len(words) < len(args):
        os.environ[DEBUG_VARIABLE] = "1"
    verb = words[0] if words else ""
    if not words or verb in ("-h", "--help"):
        print(format_overview(name_program()))
    elif verb == "--version":
        print(f"lightning_sd {lightning_sd.__version__}")
    elif verb in _TOOLS:
        _run_guarded(lambda: importlib.import_module(_TOOLS[verb]).main(words))
    elif verb in VERBS and words[1:] in (["-h"], ["--help"]):
        print(format_verb(name_program(), verb))
    elif verb == "critique" and len(words) > 1 and not words[1].startswith("-"):
        from lightning_sd.cli.cache import main as run_cache_command

        run_cache_command(words[1:])
    elif verb in VERBS or verb.startswith("-"):
        if "--print_completion" in words:
            os.environ[COMPLETION_VARIABLE] = "true"
        _run_guarded(lambda: _run_lightning(words))
    else:
        from lightning_sd.cli.errors import suggest

        commands = ", ".join(VERBS)
        _exit_with(f"{verb}: there is no such command{suggest(verb, VERBS)} Commands: {commands}.")


def name_program() -> str:
    """Return the command that started the program, for help and errors."""
    name = Path(sys.argv[0]).name
    return "python -m lightning_sd" if name in ("__main__.py", "-m", "") else name


def _run_lightning(words: Sequence[str]) -> None:
    # Imports make 400,000 objects that stay, which the garbage collector would search again and
    # again: a third of the time to start. It also leaves them out during the run.
    gc.disable()
    try:
        from lightning_sd.cli.main import load_public_classes, main

        load_public_classes()
    finally:
        gc.freeze()
        gc.enable()
    from lightning_sd.models.extras import require_extra

    if any(word.startswith("shtab-") for word in words):
        require_extra("shtab", "completion")
    main(["--help" if word == "--help_all" else word for word in words], name_program())


def _run_guarded(function: object) -> None:
    """Call a function; print an error of the user's settings in one line."""
    assert callable(function)
    try:
        function()
    except Exception as error:
        from lightning_sd.types import RunStoppedError

        stopped = isinstance(error, (RunStoppedError, FloatingPointError))
        if os.environ.get(DEBUG_VARIABLE) or not (stopped or _is_about_settings(error)):
            raise
        _exit_with(str(error), status=1 if stopped or _has_begun(error) else 2)


def _is_about_settings(error: Exception) -> bool:
    """Tell errors of settings from failures of a run, which keep their traceback.

    This package, Lightning and transformers check settings before the first batch.
    """
    kinds = (ValueError, TypeError, ImportError, OSError, RuntimeError)
    if not isinstance(error, kinds) and type(error).__name__ != "MisconfigurationException":
        return False
    frames = traceback.extract_tb(error.__traceback__)
    running = ("training_step", "validation_step", "test_step", "predict_step", "optimizer_step")
    return not any(frame.name in running for frame in frames)


def _has_begun(error: Exception) -> bool:
    """Tell whether an error comes from a loop over batches, such as that of a full disk."""
    return any(frame.name == "advance" for frame in traceback.extract_tb(error.__traceback__))


def _exit_with(message: str, status: int = 2) -> NoReturn:
    from lightning_sd.text.cleaning import clean_text, hide_credentials

    text = " ".join(clean_text(hide_credentials(message)).split())
    sys.stderr.write(f"error: {text} (--debug shows the traceback)\n")
    sys.exit(status)
