"""What a critic is: (question, reference, attempt) in, step-aligned critique out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning_sd.types import Critique, Question, Verdict

if TYPE_CHECKING:
    from lightning_sd.tasks.base import Task

_FAILED = "failed: "


@dataclass(frozen=True)
class CritiqueRequest:
    """One attempt to be criticised."""

    question: Question
    attempt: str
    verdict: Verdict
    """The verifier's word on the attempt: decides between the cases A-D."""
    finished: bool = True
    """False: the attempt was cut off at the length limit (case C)."""
    refused: str | None = None
    """Why the last answer to this was refused, if it is asked again. No part of the cache key."""


class Critic(ABC):
    """A frozen critic. Its answers are cached, so the same request must give the same critique."""

    batch_size: int = 256
    """Requests that :meth:`stream` hands to :meth:`critique` at once."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides a critique beside the request, as plain JSON values.

        Model and weights, quantisation, dtype, prompt, decoding settings, rule version. The cache
        key is a hash over it: what is missing here lets one critic's words be served as another's.
        """

    @abstractmethod
    def critique(self, requests: Sequence[CritiqueRequest]) -> list[Critique]:
        """Write one critique a request, in order. A refused one says why; none is left out.

        What could not be asked at all (a server that is down) comes as :func:`failed`, which is
        not cached and asked again next time.
        """

    def stream(self, requests: Sequence[CritiqueRequest]) -> Iterator[tuple[int, Critique]]:
        """Critiques as they come, each with the index of its request.

        They are written to the cache on the way, so that a crash loses little of the work.
        """
        for start in range(0, len(requests), self.batch_size):
            batch = requests[start : start + self.batch_size]
            critiques = self.critique(batch)
            if len(critiques) != len(batch):
                raise RuntimeError(
                    f"{type(self).__name__}.critique gave {len(critiques)} critiques for "
                    f"{len(batch)} requests; it must give one each, in order."
                )
            yield from enumerate(critiques, start)

    def setup(self, task: Task) -> None:  # noqa: B027 - most critics need nothing of the task
        """Called once with the data module's task, before the first :meth:`critique`."""


def failed(reason: str) -> Critique:
    """What stands for a critique that could not be had; it may be had another time.

    Example:
        >>> is_failure(failed("no connection")), is_failure(Critique("", "D", refused="empty"))
        (True, False)
    """
    return Critique(text="", case="", refused=f"{_FAILED}{reason}")


def is_failure(critique: Critique) -> bool:
    """Whether it comes from :func:`failed`."""
    return critique.refused is not None and critique.refused.startswith(_FAILED)
