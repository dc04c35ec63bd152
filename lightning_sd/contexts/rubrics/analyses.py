"""Analyses that a model wrote ahead of its answers, each written once for the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_sd._serialize import NotPlainError, describe
from lightning_sd.contexts.rubrics.store import TextStore, text_key
from lightning_sd.rollout.base import Sampler
from lightning_sd.types import Message

Write = Callable[[Sequence[Sequence[Message]]], list[str]]


class Analyses:
    """Remembers texts by prompt (so by question, reference, rubric and wording), sampler, weights.

    Args:
        sampler: Writes them; its settings are part of the key.
        path: File that keeps them for other runs; None: they are kept in memory.
    """

    def __init__(self, sampler: Sampler, path: str | None = None) -> None:
        self.kept: dict[str, str] = {}
        self._store = None if path is None else TextStore(path)
        try:
            self._settings = describe(sampler)
        except NotPlainError:
            self._settings = type(sampler).__qualname__

    def texts(self, prompts: Sequence[Sequence[Message]], weights: str, write: Write) -> list[str]:
        """One text a prompt; ``write`` is asked for those that are missing.

        Args:
            prompts: Chat messages.
            weights: Fingerprint of the weights that write.
            write: Gives a text for each prompt; not called without prompts.
        """
        keys = [self._key(prompt, weights) for prompt in prompts]
        missing = {key: prompts[i] for i, key in enumerate(keys) if not self._recall(key)}
        if missing:
            fresh = dict(zip(missing, write(list(missing.values())), strict=True))
            self.kept.update(fresh)
            if self._store is not None:
                self._store.put({key: {"text": text} for key, text in fresh.items()})
        return [self.kept[key] for key in keys]

    def _recall(self, key: str) -> bool:
        if key not in self.kept and self._store is not None:
            entry: dict[str, Any] | None = self._store.get(key)
            if entry is not None:
                self.kept[key] = str(entry["text"])
        return key in self.kept

    def _key(self, prompt: Sequence[Message], weights: str) -> str:
        plain = [dict(message) for message in prompt]
        return text_key(prompt=plain, sampler=self._settings, weights=weights)
