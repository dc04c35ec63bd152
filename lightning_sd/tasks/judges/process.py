"""Run judges in a worker process that can be ended at a deadline."""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_sd.types import JudgeStatus

_WORKER = Path(__file__).with_name("process_worker.py")
_START_SECONDS = 300.0
"""Time limit for a worker to start and import the judge, in seconds."""


@dataclass(frozen=True)
class JudgeLimits:
    """Limits of a judge.

    Args:
        seconds: Time limit per completion, in seconds. None runs the judge in the training process
            without any limit, for judges that hold a model on the accelerator or that are defined
            in a notebook.
        batch_seconds: Time limit of all completions of a batch together, in seconds.
        megabytes: Memory that the judge may allocate beyond its imports, in MiB.

    Raises:
        ValueError: A limit is out of range.
    """

    seconds: float | None = 10.0
    batch_seconds: float = 300.0
    megabytes: int = 2048

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds={self.seconds}: must be above 0, or None for no limit.")
        if not self.batch_seconds > 0:
            raise ValueError(f"batch_seconds={self.batch_seconds}: must be above 0.")
        if self.megabytes < 1:
            raise ValueError(f"megabytes={self.megabytes}: must be at least 1.")


@dataclass(frozen=True)
class Outcome:
    """The result of one call of a judge."""

    value: Any = None
    """The returned value, plain data. None if there is none."""
    status: JudgeStatus = "judged"
    """``judged``, ``timed_out`` or ``crashed``."""
    reason: str | None = None
    """Reason of a missing value, such as ``MemoryError``."""


class JudgeProcess:
    """Calls a function in a worker process and replaces the process when a call does not end.

    The worker starts at the first call. It is a new interpreter, not a fork, so that the threads
    and accelerators of the training process cannot disturb it. A worker that exceeds its time is
    killed together with the processes that it started, and the next call starts a new one.

    Args:
        function: A function that can be pickled and returns plain data (numbers, strings, lists).
        limits: The limits.

    Example:
        >>> import math
        >>> process = JudgeProcess(math.factorial, JudgeLimits(seconds=5))
        >>> process.run([(5,)])[0].value
        120
        >>> process.close()
    """

    def __init__(self, function: Callable[..., Any], limits: JudgeLimits | None = None) -> None:
        self.function, self.limits = function, limits or JudgeLimits()
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._end: Callable[[], Any] | None = None

    def run(
        self, calls: Sequence[tuple[Any, ...]], *, seconds: float | None = None
    ) -> list[Outcome]:
        """Call the function once per tuple of arguments.

        Args:
            calls: The arguments of each call.
            seconds: Time limit per call in seconds. None uses that of ``limits``.

        Returns:
            One outcome per call, in order. A call that raises, crashes or does not end has no
            value, and the remaining calls go on in a new worker.

        Raises:
            RuntimeError: The worker cannot load the function.
            TypeError: The function or an argument cannot be pickled.
        """
        if self.limits.seconds is None:
            return [_call_here(self.function, arguments) for arguments in calls]
        each = seconds or self.limits.seconds
        end = time.monotonic() + self.limits.batch_seconds
        with self._lock:
            return [self._call(arguments, each, end) for arguments in calls]

    def close(self) -> None:
        """End the worker. The next call starts a new one."""
        if self._end is not None:
            self._end()
        self._worker = self._end = None

    def _call(self, arguments: tuple[Any, ...], seconds: float, end: float) -> Outcome:
        left = end - time.monotonic()
        if left <= 0:
            reason = f"the batch took more than {self.limits.batch_seconds:g} s"
            return Outcome(status="timed_out", reason=reason)
        frame = _pickle((seconds, arguments), "an argument of the judge")
        worker = self._get_worker()
        reply = None
        late = False
        with suppress(OSError):
            _send(worker, frame)
            reply, late = _receive(worker, min(seconds, left))
        if reply is None or reply.get("broken"):
            self.close()
        if late:
            return Outcome(status="timed_out", reason=f"no result within {min(seconds, left):g} s")
        if reply is None:
            return Outcome(status="crashed", reason=f"the process ended: {_name_end(worker)}")
        if "error" in reply:
            return Outcome(status="crashed", reason=str(reply["error"]))
        return Outcome(reply["value"])

    def _get_worker(self) -> subprocess.Popen[bytes]:
        worker = self._worker
        if worker is None or self._owner != os.getpid() or _has_ended(worker):
            self.close()
            worker = self._start()
        return worker

    def _start(self) -> subprocess.Popen[bytes]:
        job = _pickle((self.function, self.limits.megabytes), "the judge")
        _refuse_main(self.function)
        worker = subprocess.Popen(
            [sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._worker, self._owner = worker, os.getpid()
        self._end = weakref.finalize(self, _end_worker, worker, self._owner)
        reply = None
        with suppress(OSError):
            _send(worker, json.dumps(sys.path).encode())
            _send(worker, job)
            reply, _ = _receive(worker, _START_SECONDS)
        if reply is None or "error" in reply:
            self.close()
            reason = "it did not start" if reply is None else reply["error"]
            raise RuntimeError(
                f"judge: the worker process could not load it ({reason}). Define it in a module "
                "that can be imported, or set judge_limits.seconds to null."
            )
        return worker

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self.function, "limits": self.limits}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _call_here(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    try:
        return Outcome(function(*arguments))
    except Exception as error:
        return Outcome(status="crashed", reason=f"{type(error).__name__}: {error}"[:300])


def _pickle(value: Any, what: str) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise TypeError(
            f"judge: {what} cannot be sent to the worker process ({error}). Use a function of a "
            "module, or set judge_limits.seconds to null to judge without a limit."
        ) from error


def _refuse_main(function: Any) -> None:
    """Refuse a function that only the main script defines, which a new interpreter cannot load."""
    parts = [function, *getattr(function, "args", ())]
    for part in parts:
        home = getattr(part, "__module__", None) or type(part).__module__
        if home == "__main__" or type(part).__module__ == "__main__":
            name = getattr(part, "__qualname__", type(part).__qualname__)
            raise TypeError(
                f"judge={name}: the main script defines it, and the worker process cannot import "
                "that. Move it to a module, or set judge_limits.seconds to null to judge without a "
                "limit."
            )


def _send(worker: subprocess.Popen[bytes], body: bytes) -> None:
    assert worker.stdin is not None
    worker.stdin.write(struct.pack("<Q", len(body)) + body)
    worker.stdin.flush()


def _receive(worker: subprocess.Popen[bytes], seconds: float) -> tuple[dict[str, Any] | None, bool]:
    """Return the next reply, or None with whether the time was up."""
    assert worker.stdout is not None
    file, end, data = worker.stdout.fileno(), time.monotonic() + seconds, b""
    wanted = 8
    while len(data) < wanted:
        left = end - time.monotonic()
        if left <= 0 or not select.select([file], [], [], left)[0]:
            return None, True
        part = os.read(file, wanted - len(data))
        if not part:
            return None, False
        data += part
        if wanted == 8 and len(data) == 8:
            wanted += struct.unpack("<Q", data)[0]
    reply: dict[str, Any] = json.loads(data[8:])
    return reply, False


def _name_end(worker: subprocess.Popen[bytes]) -> str:
    code = worker.returncode
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def _has_ended(worker: subprocess.Popen[bytes]) -> bool:
    """Tell whether a worker has ended, without giving its process id free."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return worker.returncode is not None or os.waitid(os.P_PID, worker.pid, flags) is not None


def _end_worker(worker: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a worker and its children, unless this process is a fork of its owner."""
    if owner != os.getpid():
        return
    if worker.returncode is None:
        # A worker that has ended keeps its exit code, and its id is not reused before wait().
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    for stream in (worker.stdin, worker.stdout):
        if stream is not None:
            with suppress(OSError):  # the buffer of a broken pipe may still hold a call
                stream.close()
