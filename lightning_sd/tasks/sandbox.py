"""Run untrusted programs in a confined process."""

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
class CallResult:
    """The result of one call."""

    value: str | None
    """``repr`` of the returned value, at most 300 characters. None if the call failed."""
    error: str | None = None
    """Reason of the failure, such as ``ZeroDivisionError: division by zero (line 2)``."""


class Sandbox:
    """Calls functions of untrusted Python programs.

    The first call starts a helper process, which forks once per program. A fork takes about a
    millisecond and replaces the start of an interpreter. The Linux kernel confines each program to
    computation with a seccomp filter and resource limits (see ``sandbox_worker.py``). The sandbox
    is meant for programs written by models, not as a defense against exploits of the kernel.

    Args:
        seconds: Time limit of one program over all its inputs, in seconds.
        megabytes: Limit of the address space in MiB, interpreter included.

    Raises:
        ValueError: A limit is too low to run any program.

    Example:
        >>> error, results = Sandbox().call("def f(x): return 2 * x", "f", [[3]])
        >>> error, results[0].value
        (None, '6')
    """

    def __init__(self, seconds: float = 1.0, megabytes: int = 256) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds={seconds}: must be above 0.")
        if megabytes < 64:
            raise ValueError(f"megabytes={megabytes}: must be at least 64, for the interpreter.")
        self.seconds, self.megabytes = seconds, megabytes
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None
        self._owner = 0

    def call(
        self, source: str, function: str, inputs: Sequence[Sequence[int]]
    ) -> tuple[str | None, list[CallResult]]:
        """Load a program and call one of its functions.

        Args:
            source: Source code in Python.
            function: Name of the function.
            inputs: Arguments per call.

        Returns:
            The reason why the program could not be loaded, or None, and one result per input.

        Raises:
            RuntimeError: This machine cannot confine programs.
        """
        limits = {"seconds": self.seconds, "megabytes": self.megabytes}
        job = {"source": source, "function": function, "inputs": list(map(list, inputs)), **limits}
        with self._lock:
            *lines, end = self._ask(json.dumps(job))
        missing = f"no result within {self.seconds:g} s" if end == "late" else "the program crashed"
        if not lines or lines[0] is not None:
            return (str(lines[0]) if lines else missing), []
        results = [
            CallResult(*line) if isinstance(line, list) else CallResult(None, missing)
            for line in lines[1 : len(inputs) + 1]
        ]
        return None, results + [CallResult(None, missing)] * (len(inputs) - len(results))

    def close(self) -> None:
        """End the helper process. The next call starts a new one."""
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
                reply: list[Any] = json.loads(line)
                return reply
            self.close()  # the helper process was ended from outside
        raise RuntimeError("The helper process of the sandbox ended twice on the same program.")

    def _start(self) -> None:
        # The environment may hold secrets, so programs do not get it.
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
                "This machine cannot confine programs: the sandbox needs Linux with seccomp on "
                "x86_64 or aarch64. Run on such a machine or choose another task."
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "megabytes": self.megabytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _end(worker: subprocess.Popen[str], owner: int | None = None) -> None:
    """End a helper process, unless this process is a fork of its owner."""
    if owner is not None and owner != os.getpid():
        return
    worker.kill()
    worker.wait()
    for stream in (worker.stdin, worker.stdout):
        if stream is not None:
            with suppress(OSError):  # the buffer of a broken pipe may still hold a job
                stream.close()
