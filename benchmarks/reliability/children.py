"""Run functions in forked processes, so that a killed run costs no start of Python and torch."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

LIMIT = 300.0
"""Seconds after which a child counts as hanging."""


def run_child(work: Callable[[], None], output: Path, seconds: float | None = None) -> bool:
    """Call a function in a forked process; return whether it ended without being killed.

    Args:
        work: The function. It may kill its own process.
        output: File to which its output is appended.
        seconds: Kill it after that time, if it still runs.

    Raises:
        RuntimeError: It raised an exception, or hangs.
    """
    child = os.fork()
    if child == 0:
        _run_and_exit(work, output)
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        waited = time.monotonic() - began
        if seconds is not None and waited > seconds:
            os.kill(child, signal.SIGKILL)
        elif waited > LIMIT:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise RuntimeError(f"{output}: the run hangs.")
        time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{output}: exit code {code}.")
    return code == 0


def _run_and_exit(work: Callable[[], None], output: Path) -> NoReturn:
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            work()
        except BaseException:
            traceback.print_exc(file=file)
            file.flush()
            os._exit(1)
    os._exit(0)
