"""Run a function in a fork under limits of time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

MEMORY = 12 * 2**30
"""Bytes of address space of a fork; a mutant may ask for any amount."""
PATIENCE = 20
"""Seconds of waiting per processor second of the limit: the machine may be busy."""

SURVIVED, KILLED, NOT_FOUND, UNPATCHED = 0, 1, 5, 77
"""Exit codes; the first three are pytest's."""
NAMES = {SURVIVED: "survived", 4: "untested", NOT_FOUND: "untested", UNPATCHED: "unpatched"}
Tell = Callable[[str], None]
"""Reports a failing test."""


class Result(NamedTuple):
    """What a fork found."""

    name: str
    """``survived``, ``killed``, ``timeout``, ``untested`` if no test was found, or ``unpatched``
    if the mutant has to be imported."""
    test: str
    """The first failing test."""
    seconds: float
    """Processor time."""


def run_fork(action: Callable[[Tell], int], seconds: float) -> Result:
    """Run ``action`` in a fork, without output; it returns an exit code.

    Args:
        action: It gets a function that reports a failing test.
        seconds: Limit of the processor time.
    """
    before = sum(os.times()[2:4])
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 6))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        code = KILLED
        try:
            code = action(lambda text: _write(sink, text))
        finally:
            os._exit(code)
    os.close(sink)
    code = _wait(child, seconds * PATIENCE)
    with os.fdopen(source, errors="replace") as file:
        failed = file.readline().strip() if select.select([file], [], [], 1)[0] else ""
    return Result(_name(code), failed, round(sum(os.times()[2:4]) - before, 1))


def _write(sink: int, text: str) -> None:
    os.write(sink, f"{text}\n".encode())


def _wait(child: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    pid, status = 0, 0
    while not pid and time.monotonic() < deadline:
        time.sleep(0.01)
        pid, status = os.waitpid(child, os.WNOHANG)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not pid:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def _name(code: int | None) -> str:
    if code is None or code == -signal.SIGXCPU:
        return "timeout"
    return NAMES.get(code, "killed")
