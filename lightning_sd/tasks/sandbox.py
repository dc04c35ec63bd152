"""Running programs that nobody trusts, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WORKER = Path(__file__).with_name("sandbox_worker.py")


@dataclass(frozen=True)
class Returned:
    """What one call gave."""

    value: str | None
    """``repr`` of the result, at most 300 characters; None: there is none."""
    error: str | None = None
    """Why there is none, such as ``ZeroDivisionError: division by zero (line 2)``."""


class Sandbox:
    """Calls functions of untrusted Python programs.

    A helper process is started at the first call and forks for every program: about a millisecond
    each, instead of the start of an interpreter. What a program can do is decided by the Linux
    kernel (a seccomp filter and resource limits, see ``sandbox_worker.py``): compute, and nothing
    else. It is made for what models write, not for people who know holes in the kernel.

    Args:
        seconds: Longest time of one program, over all its inputs.
        megabytes: Of address space, interpreter included.

    Raises:
        ValueError: Limits too low to run anything.
    """

    def __init__(self, seconds: float = 1.0, megabytes: int = 256) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds={seconds}: must be above 0.")
        if megabytes < 64:
            raise ValueError(f"megabytes={megabytes}: the interpreter alone needs 64.")
        self.seconds, self.megabytes = seconds, megabytes
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None
        self._owner = 0

    def call(
        self, source: str, function: str, inputs: Sequence[Sequence[int]]
    ) -> tuple[str | None, list[Returned]]:
        """Load a program and call one of its functions.

        Args:
            source: Python.
            function: Its name.
            inputs: Arguments of each call.

        Returns:
            Why the program could not be loaded, or None; and one result an input.

        Raises:
            RuntimeError: Programs can't be confined on this machine.
        """
        limits = {"seconds": self.seconds, "megabytes": self.megabytes}
        job = {"source": source, "function": function, "inputs": list(map(list, inputs)), **limits}
        with self._lock:
            *lines, end = self._ask(json.dumps(job))
        missing = f"no result within {self.seconds:g} s" if end == "late" else "the program crashed"
        if not lines or lines[0] is not None:
            return (str(lines[0]) if lines else missing), []
        found = [
            Returned(*line) if isinstance(line, list) else Returned(None, missing)
            for line in lines[1 : len(inputs) + 1]
        ]
        return None, found + [Returned(None, missing)] * (len(inputs) - len(found))

    def close(self) -> None:
        """End the helper process; the next call starts another."""
        if self._worker is not None and self._owner == os.getpid():
            _end(self._worker)
        self._worker = None

    def _ask(self, job: str) -> list[Any]:
        for _ in range(2):
            if self._worker is None or self._owner != os.getpid():
                self._start()
            assert self._worker is not None
            assert self._worker.stdin is not None
            assert self._worker.stdout is not None
            try:
                self._worker.stdin.write(job + "\n")
                self._worker.stdin.flush()
                line = self._worker.stdout.readline()
            except OSError:
                line = ""
            if line:
                found: list[Any] = json.loads(line)
                return found
            self.close()  # somebody ended it
        raise RuntimeError("The sandbox's helper process ended twice over one program.")

    def _start(self) -> None:
        # The environment may hold secrets; programs see none of it.
        kept = {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}
        self._worker = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=kept,
            cwd="/",
        )
        self._owner = os.getpid()
        weakref.finalize(self, _end, self._worker, os.getpid())
        assert self._worker.stdout is not None
        first = self._worker.stdout.readline()
        if "PermissionError" not in first:
            self.close()
            raise RuntimeError(
                "Programs can't be confined on this machine: the sandbox needs Linux with seccomp "
                "on x86_64 or aarch64. Judge programs elsewhere, or take another task."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "megabytes": self.megabytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _end(worker: subprocess.Popen[str], owner: int | None = None) -> None:
    """End a helper process, unless this is a fork of the process that started it."""
    if owner is not None and owner != os.getpid():
        return
    worker.kill()
    worker.wait()
    for stream in (worker.stdin, worker.stdout):
        if stream is not None:
            with suppress(OSError):  # a job may still be in the buffer of a broken pipe
                stream.close()
