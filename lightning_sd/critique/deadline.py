"""Run a critic in a thread of its own, and give it up when it hangs."""

from __future__ import annotations

import ctypes
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from lightning_sd.critique.base import Critic, CritiqueRequest
from lightning_sd.types import Critique

_STOP_SECONDS = 2.0
"""How long to wait for a stopped critic before its thread is left to itself."""

_Result = tuple[Literal["critique", "error", "end"], Any]


class CriticTimeoutError(Exception):
    """The critic wrote no critique within the deadline."""


class _CriticStopped(BaseException):
    """Raised inside the critic's thread to end it. Not an ``Exception``, so critics let it pass."""


class DeadlineRunner:
    """Iterates over ``critic.stream`` and stops when no critique arrives for too long.

    The critic runs in a daemon thread. At the deadline an exception is raised inside that thread,
    which ends Python code. A critic that blocks outside Python (a socket without a timeout, a
    kernel that never ends) keeps its thread, but the caller goes on; until that thread has ended,
    further requests fail at once instead of waiting for the deadline again.

    Args:
        seconds: Seconds without a new critique after which the critic is given up. None sets no
            deadline and runs the critic in the caller's thread.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._hanging: threading.Thread | None = None

    def stream(
        self, critic: Critic, requests: Sequence[CritiqueRequest]
    ) -> Iterator[tuple[int, Critique]]:
        """Yield what ``critic.stream(requests)`` yields.

        Raises:
            CriticTimeoutError: No critique arrived within the deadline.
            Exception: Any exception of the critic.
        """
        if self.seconds is None:
            yield from critic.stream(requests)
            return
        if self._hanging is not None and self._hanging.is_alive():
            raise CriticTimeoutError("the critic still hangs on earlier requests")
        results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        thread = threading.Thread(
            target=_produce,
            args=(critic, requests, results, _get_cuda_device()),
            name="critic",
            daemon=True,
        )
        thread.start()
        kind: str = "critique"
        value: Any = None
        try:
            while True:
                kind, value = self._receive(results)
                if kind != "critique":
                    break
                yield value
        finally:
            if kind == "critique":  # the critic has not ended by itself
                _interrupt(thread)
            thread.join(_STOP_SECONDS)
            self._hanging = thread if thread.is_alive() else None
        if kind == "error":
            raise value

    def _receive(self, results: queue.SimpleQueue[_Result]) -> _Result:
        try:
            return results.get(timeout=self.seconds)
        except queue.Empty:
            raise CriticTimeoutError(f"no critique within {self.seconds:g} s") from None


def _produce(
    critic: Critic,
    requests: Sequence[CritiqueRequest],
    results: queue.SimpleQueue[_Result],
    device: int | None,
) -> None:
    try:
        if device is not None:  # a new thread starts on the first GPU
            sys.modules["torch"].cuda.set_device(device)
        for item in critic.stream(requests):
            results.put(("critique", item))
        results.put(("end", None))
    except _CriticStopped:
        pass
    except BaseException as error:
        results.put(("error", error))


def _interrupt(thread: threading.Thread) -> None:
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_CriticStopped)
        )


def _get_cuda_device() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.current_device())
