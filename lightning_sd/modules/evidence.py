"""The protocol by which a module asks its data module to judge and criticize rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning_sd.types import Rollout


@runtime_checkable
class EvidenceSource(Protocol):
    """What a data module offers in addition to its loaders, so that rollouts can be judged."""

    def check(self, needs: frozenset[str]) -> None:
        """Raise if some of the evidence is not available, such as ``critique`` without a critic."""
        ...

    def evidence(self, rollouts: Sequence[Rollout], needs: frozenset[str]) -> list[Rollout]:
        """Return the rollouts in order, with ``verdict`` and the evidence named by ``needs``."""
        ...

    def counters(self) -> Mapping[str, float | tuple[float, float]]:
        """Return what to log since the last call.

        A number is a count, which is summed over micro-batches and ranks, such as cache hits. A
        pair is a mean: a sum, and the number of its items.
        """
        ...


def get_evidence_source(trainer: Any) -> EvidenceSource:
    """Return the trainer's data module.

    Raises:
        TypeError: There is none, or it cannot judge rollouts.
    """
    source = getattr(trainer, "datamodule", None)
    if not isinstance(source, EvidenceSource):
        raise TypeError(
            f"datamodule is {type(source).__name__}: rollouts are judged by the data module, so "
            "pass a CritiqueDataModule (or one with check, evidence and counters) to the trainer."
        )
    return source
