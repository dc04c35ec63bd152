"""The critic interface: a question and an attempt in, a step-aligned critique out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_sd.types import Critique, Question, Verdict

if TYPE_CHECKING:
    from lightning_sd.tasks.base import Task

_FAILURE_PREFIX = "failed: "


@dataclass(frozen=True)
class CritiqueRequest:
    """One attempt that a critic is asked to repair."""

    question: Question
    attempt: str
    """The student's solution, decoded without special tokens."""
    verdict: Verdict
    """The task's verdict on the attempt. It decides between the critique cases A to D."""
    finished: bool = True
    """False if the attempt was cut off at the length limit (case C)."""
    previous_refusal: str | None = None
    """Why the critic's previous answer was refused, when it is asked a second time. Not part of the
    cache key."""


class Critic(ABC):
    """A frozen critic. Its critiques are cached, so equal requests must give equal critiques.

    Subclasses implement :meth:`identity` and :meth:`critique`.

    Example:
        >>> class Praise(Critic):
        ...     def identity(self):
        ...         return {"critic": "praise"}
        ...     def critique(self, requests):
        ...         return [Critique(request.attempt, "A") for request in requests]
        >>> request = CritiqueRequest(Question("1", "1+1?", ()), "2", Verdict(1.0, True))
        >>> list(Praise().stream([request]))[0][1].text
        '2'
    """

    batch_size: int = 256
    """Number of requests that :meth:`stream` passes to one call of :meth:`critique`."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return everything besides the request that decides a critique, as plain JSON values.

        Include the model and its weights, quantization, dtype, prompt, decoding settings and the
        version of any rules. The cache key is a hash of this mapping: if a setting is missing, a
        critique written under another setting is served from the cache.
        """

    @abstractmethod
    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write one critique per request, in the order of the requests.

        A critique that must not be used carries its reason in ``refused``; no request is skipped.
        If a request could not be answered at all (the server is down), return
        :func:`make_failure`: failures are not cached, so the request is sent again next time.
        """

    def stream(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        """Yield ``(request index, critique)`` pairs as critiques are finished, in any order.

        Each critique is written to the cache as soon as it is yielded, so a crash loses little
        work. The default yields batch by batch.

        Raises:
            RuntimeError: :meth:`critique` returned more or fewer critiques than requests.
        """
        for start in range(0, len(requests), self.batch_size):
            batch = requests[start : start + self.batch_size]
            critiques = self.critique(batch)
            if len(critiques) != len(batch):
                raise RuntimeError(
                    f"{type(self).__name__}.critique returned {len(critiques)} critiques for "
                    f"{len(batch)} requests. Return one critique per request, in order."
                )
            yield from enumerate(critiques, start)

    def setup(self, task: Task) -> None:  # noqa: B027 - most critics need nothing from the task
        """Prepare for a task. The data module calls this once, before the first request."""


def make_failure(reason: str) -> Critique:
    """Return the placeholder for a critique that could not be obtained this time.

    Example:
        >>> is_failure(make_failure("no connection"))
        True
        >>> is_failure(Critique("", "D", refused="it is empty"))
        False
    """
    return Critique(text="", case="", refused=f"{_FAILURE_PREFIX}{reason}")


def is_failure(critique: Critique) -> bool:
    """Tell whether a critique was made by :func:`make_failure`."""
    return critique.refused is not None and critique.refused.startswith(_FAILURE_PREFIX)
