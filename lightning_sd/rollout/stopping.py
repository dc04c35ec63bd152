"""Decide when a completion ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_sd.models.stop_ids import StopIds


@dataclass(frozen=True)
class StopRule:
    """The tokens and texts that end a completion."""

    ids: Tensor
    """Token ids that end a completion."""
    strings: tuple[str, ...]
    """Texts that end a completion."""
    tokenizer: Any
    """Decodes recent tokens; None without texts."""

    @classmethod
    def build(
        cls, stop_ids: Sequence[int], more_ids: Sequence[int], strings: Sequence[str]
    ) -> StopRule:
        """Combine the model's stop ids with a sampler's settings.

        Args:
            stop_ids: The model's stop ids, as :class:`StopIds` if there are strings.
            more_ids: Further token ids.
            strings: Texts that end a completion.

        Raises:
            ValueError: There are strings, but no tokenizer to decode with.
        """
        tokenizer = stop_ids.tokenizer if isinstance(stop_ids, StopIds) else None
        if strings and tokenizer is None:
            raise ValueError(
                f"stop_strings={list(strings)} needs a tokenizer: pass the stop_ids that "
                "find_stop_ids(model, tokenizer) returns."
            )
        return cls(torch.tensor([*stop_ids, *more_ids]), tuple(strings), tokenizer)

    @property
    def window(self) -> int:
        """Number of recent tokens that may hold a text: one per byte, and one for a cut start."""
        return 1 + max(len(text.encode()) for text in self.strings)

    def matches(self, recent: list[int]) -> bool:
        """Return whether the newest of these tokens completes a text."""
        text = self.tokenizer.decode(recent)
        return any(string in text for string in self.strings)
