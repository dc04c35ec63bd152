"""Writing the rubrics of many questions with a trained generator, once each (RCSD, stage I)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_sd._serialize import describe, hash_identity
from lightning_sd.contexts.rubrics.rubric import Parsed, parse_rubric
from lightning_sd.contexts.rubrics.sources import rubric_key
from lightning_sd.contexts.rubrics.store import Entry, TextStore
from lightning_sd.contexts.rubrics.wording import design_text
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.fingerprint import fingerprint_module
from lightning_sd.models.stop_ids import find_stop_ids
from lightning_sd.rollout.base import Sampler
from lightning_sd.types import Message, Question


@dataclass(frozen=True)
class WriteReport:
    """What came of writing rubrics."""

    generator: str
    """Digest of weights, sampler and wording, by which ``GeneratedRubric`` tells rubrics apart."""
    questions: int
    stored: int
    """Questions that were settled before."""
    written: int
    """Rubrics written now."""
    refused: Mapping[str, int]
    """Texts written now that are no rubric, by reason."""


@dataclass(frozen=True)
class Generator:
    """Who writes, and how."""

    model: nn.Module
    tokenizer: Any
    sampler: Sampler
    design: str
    """Wording, with ``{question}`` and ``{reference}``."""

    def digest(self) -> str:
        """A hash over everything that decides what is written, but for the draw."""
        identity = {
            "weights": fingerprint_module(self.model),
            "template": getattr(self.tokenizer, "chat_template", None),
            "sampler": describe(self.sampler),
            "design": self.design,
        }
        return hash_identity(identity).hex()

    def write(self, questions: Sequence[Question], seed: int) -> list[Parsed]:
        """A rubric for each question, or why there is none."""
        prompts = [
            (Message(role="user", content=design_text(question, self.design)),)
            for question in questions
        ]
        device = next(self.model.parameters()).device
        completions = self.sampler.sample(
            self.model,
            [encode_prompt(self.tokenizer, prompt) for prompt in prompts],
            samples=1,
            stop_ids=find_stop_ids(self.model, self.tokenizer),
            generator=torch.Generator(device).manual_seed(seed),
        )
        found = []
        for completion in completions:
            text = self.tokenizer.decode(completion.ids, skip_special_tokens=True)
            found.append(parse_rubric(text, complete=completion.finished))
        return found


def write_rubrics(
    generator: Generator,
    questions: Sequence[Question],
    store: TextStore,
    *,
    batch_size: int = 16,
    asks: int = 1,
    seed: int = 0,
) -> WriteReport:
    """Write what is missing, batch by batch, each stored before the next.

    A run that was stopped goes on where it was, and a second run writes nothing.

    Args:
        generator: Who writes.
        questions: With reference answers.
        store: Where rubrics and refusals are kept.
        batch_size: Questions at once.
        asks: How often a question is asked for whose text was refused, over all runs.
        seed: Of sampling, together with the questions of a batch and how often they were asked.

    Raises:
        ValueError: A number below 1.
    """
    if batch_size < 1 or asks < 1:
        raise ValueError(f"batch_size={batch_size}, asks={asks}: must be at least 1.")
    digest = generator.digest()
    rows = {rubric_key(digest, question): question for question in questions}
    stored = sum(_settled(store.get(key), asks) for key in rows)
    written, refused = 0, Counter[str]()
    for _ in range(asks):
        todo = [key for key in rows if not _settled(store.get(key), asks)]
        for start in range(0, len(todo), batch_size):
            keys = todo[start : start + batch_size]
            old = [store.get(key) or {} for key in keys]
            parsed = generator.write([rows[key] for key in keys], _seed(seed, keys, old))
            entries: dict[str, Entry] = {}
            for key, before, one in zip(keys, old, parsed, strict=True):
                entries[key] = {
                    "generator": digest,
                    "question": rows[key].id,
                    "rubric": one.rubric and one.rubric.plain(),
                    "refused": one.refused,
                    "asked": before.get("asked", 0) + 1,
                }
            store.put(entries)
            written += sum(one.rubric is not None for one in parsed)
            refused.update(one.refused for one in parsed if one.refused)
    return WriteReport(digest, len(rows), stored, written, dict(refused))


def _settled(entry: Entry | None, asks: int) -> bool:
    return entry is not None and (bool(entry.get("rubric")) or entry.get("asked", 1) >= asks)


def _seed(seed: int, keys: Sequence[str], old: Sequence[Entry]) -> int:
    times = [str(entry.get("asked", 0)) for entry in old]
    digest = hashlib.sha256("\0".join([str(seed), *keys, *times]).encode()).digest()
    return int.from_bytes(digest[:7], "big")
