"""Worker process of a judge: ``python process_worker.py``, calls in, results out.

Frames are a length of 8 bytes and a body. The parent sends ``sys.path``, the pickled function and
the memory limit, and then one frame per call. The worker answers each frame with JSON, so that
nothing that a judge computes is unpickled by the parent.

The file is a script that uses the standard library only. It is not imported.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import queue
import resource
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

_LONGEST_REASON = 300


def read_frames(stream: BinaryIO) -> Iterator[bytes]:
    """Yield frames until the stream ends."""
    while len(header := stream.read(8)) == 8:
        yield stream.read(struct.unpack("<Q", header)[0])


def write_frame(stream: BinaryIO, value: Any) -> None:
    """Write one JSON frame."""
    body = json.dumps(value).encode()
    stream.write(struct.pack("<Q", len(body)) + body)
    stream.flush()


def queue_frames(stream: BinaryIO, frames: queue.Queue[bytes]) -> None:
    """Queue frames until the parent closes the pipe, then end the whole process group."""
    for frame in read_frames(stream):
        frames.put(frame)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def limit_memory(megabytes: int) -> None:
    """Limit the address space to its present size plus some MiB, where the system allows it."""
    with suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
        limit = used + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def limit_processor_time(seconds: float) -> None:
    """End this process after a call's time, also if its parent was killed meanwhile."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    allowed = (seconds + 1) * (os.cpu_count() or 1)
    soft = math.ceil(usage.ru_utime + usage.ru_stime + allowed)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def describe(error: BaseException) -> str:
    """Describe an error in one line."""
    try:
        words = " ".join(str(error).split())
    except Exception:
        words = ""
    name = type(error).__name__
    return f"{name}: {words}"[:_LONGEST_REASON] if words else name


def answer(function: Any, frame: bytes) -> dict[str, Any]:
    """Make one call."""
    seconds, arguments = pickle.loads(frame)
    limit_processor_time(seconds)
    try:
        reply = {"value": function(*arguments)}
        json.dumps(reply)
        return reply
    except BaseException as error:
        # The state after an exhausted memory is unknown, so the parent replaces the worker.
        return {"error": describe(error), "broken": isinstance(error, MemoryError)}


def main() -> None:
    """Load the function, then answer calls until the parent closes the pipe."""
    calls, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what a judge prints must not enter the results
    frames: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=queue_frames, args=(calls, frames), daemon=True).start()
    sys.path[:] = json.loads(frames.get())
    try:
        function, megabytes = pickle.loads(frames.get())
    except BaseException as error:
        write_frame(results, {"error": describe(error)})
        return
    limit_memory(megabytes)
    write_frame(results, {"ready": True})
    while True:
        write_frame(results, answer(function, frames.get()))


if __name__ == "__main__":
    main()
