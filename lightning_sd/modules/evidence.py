"""Who judges and criticises rollouts: the trainer's data module, behind a small protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning_sd.types import Rollout


@runtime_checkable
class EvidenceSource(Protocol):
    """What a data module offers beside its loaders, so that rollouts can be judged."""

    def check(self, needs: frozenset[str]) -> None:
        """Raise now if some of the evidence can't be had (no critic for ``critique``)."""
        ...

    def evidence(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """The same rollouts, in order, with ``verdict`` and whatever ``needs`` names filled in."""
        ...

    def counters(self) -> Mapping[str, float]:
        """Numbers to log since the last call, such as cache hits."""
        ...


def evidence_source(trainer: Any) -> EvidenceSource:
    """The trainer's data module.

    Raises:
        TypeError: There is none, or it can't judge rollouts.
    """
    source = getattr(trainer, "datamodule", None)
    if not isinstance(source, EvidenceSource):
        raise TypeError(
            f"datamodule is {type(source).__name__}: rollouts are judged by the data module, so "
            "pass a CritiqueDataModule (or one with check, evidence and counters) to the trainer."
        )
    return source
