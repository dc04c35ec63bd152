"""Logits formed chunk by chunk, so that those of all tokens are never held at once."""

from __future__ import annotations

from torch import Tensor

from lightning_sd.functional.linear import LogitsBuffer
from lightning_sd.functional.logits import widen
from lightning_sd.scoring.mixed import LogitsSource, MixedScores

BLOCK_ELEMENTS = 2**18
"""Logits that a CPU works on at once: they and their temporaries fit its second-level cache."""


class ScaledLogits:
    """Scores as scaled logits, chunk by chunk, in float32 or wider and free to be overwritten.

    Args:
        scores: Where the logits come from.
        scale: Factor of the logits, such as 1 / temperature.
    """

    def __init__(self, scores: LogitsSource, scale: float) -> None:
        self.scores, self.scale = scores, scale
        self._parts: list[ScaledLogits] = []
        self._buffer = None
        if isinstance(scores, MixedScores):
            self._parts = [ScaledLogits(part, scale) for part in scores.parts]
        elif scores.head is not None and scores.head.softcap is None:
            head = scores.head
            self._buffer = LogitsBuffer(head.weight, head.bias, head.scale * scale)

    def __call__(self, part: slice) -> Tensor:
        """Return the logits of some tokens, ``[chunk, vocab]``; valid until the next call."""
        if isinstance(self.scores, MixedScores):
            return self.scores.mix([source(part) for source in self._parts])
        if self._buffer is not None:
            return self._buffer.logits(self.scores.hidden[part])
        return widen(self.scores.logits(part), copy=True).mul_(self.scale)


def split_rows(logits: Tensor) -> list[slice]:
    """Split rows into blocks: on a CPU no more than its caches hold, elsewhere one block.

    Args:
        logits: ``[rows, vocab]``.
    """
    rows = len(logits)
    size = max(1, BLOCK_ELEMENTS // logits.shape[-1]) if logits.device.type == "cpu" else rows
    return [slice(start, min(start + size, rows)) for start in range(0, max(rows, 1), max(size, 1))]
