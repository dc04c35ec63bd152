"""Analyses that a model wrote before its answers, each written once for the same parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_sd._serialize import NotPlainError, describe
from lightning_sd.contexts.rubrics.store import TextStore, make_text_key
from lightning_sd.rollout.base import Sampler
from lightning_sd.types import Message

WriteTexts = Callable[[Sequence[Sequence[Message]]], list[str]]
"""Writes one text per prompt."""


class AnalysisMemory:
    """Remembers texts by prompt, sampler and parameters.

    The prompt holds the question, the reference, the rubric and the wording.

    Args:
        sampler: The sampler that writes the texts; its settings are part of the key.
        path: JSON lines file that stores the texts for other runs. Default: only in memory.
    """

    def __init__(self, sampler: Sampler, path: str | None = None) -> None:
        self.texts: dict[str, str] = {}
        """Texts by key; checkpoints hold them."""
        self._store = None if path is None else TextStore(path)
        try:
            self._settings = describe(sampler)
        except NotPlainError:
            self._settings = type(sampler).__qualname__

    def recall_or_write(
        self, prompts: Sequence[Sequence[Message]], fingerprint: str, write: WriteTexts
    ) -> list[str]:
        """Return one text per prompt, and write those that are missing.

        Args:
            prompts: Chat messages.
            fingerprint: Identifies the parameters that write.
            write: Writes one text per prompt; called only if a text is missing.
        """
        keys = [self._make_key(prompt, fingerprint) for prompt in prompts]
        missing = {key: prompts[i] for i, key in enumerate(keys) if not self._recall(key)}
        if missing:
            fresh = dict(zip(missing, write(list(missing.values())), strict=True))
            self.texts.update(fresh)
            if self._store is not None:
                self._store.put({key: {"text": text} for key, text in fresh.items()})
        return [self.texts[key] for key in keys]

    def _recall(self, key: str) -> bool:
        """Tell whether a text is known, and read it from the file if it is only there."""
        if key not in self.texts and self._store is not None:
            entry: dict[str, Any] | None = self._store.get(key)
            if entry is not None:
                self.texts[key] = str(entry["text"])
        return key in self.texts

    def _make_key(self, prompt: Sequence[Message], fingerprint: str) -> str:
        plain = [dict(message) for message in prompt]
        return make_text_key(prompt=plain, sampler=self._settings, weights=fingerprint)
