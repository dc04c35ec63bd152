"""Write the rubrics of many questions with a trained generator, once each (RCSD, stage I)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_sd._serialize import describe, hash_identity
from lightning_sd.contexts.rubrics.prompts import write_design_prompt
from lightning_sd.contexts.rubrics.rubric import ParsedRubric, parse_rubric
from lightning_sd.contexts.rubrics.sources import make_rubric_key
from lightning_sd.contexts.rubrics.store import Entry, TextStore
from lightning_sd.models.chat import encode_prompt
from lightning_sd.models.fingerprint import fingerprint_module
from lightning_sd.models.stop_ids import find_stop_ids
from lightning_sd.rollout.base import Sampler
from lightning_sd.types import Message, Question


@dataclass(frozen=True)
class WriteReport:
    """Counts of one call of :func:`write_rubrics`."""

    generator: str
    """Digest of parameters, sampler and wording; ``GeneratedRubric`` selects rubrics by it."""
    questions: int
    """Questions in all."""
    stored: int
    """Questions that were finished before this call."""
    written: int
    """Rubrics written in this call."""
    refused: Mapping[str, int]
    """Texts written in this call that are not a rubric, by reason."""


@dataclass(frozen=True)
class Generator:
    """A model that writes rubrics, and its settings."""

    model: nn.Module
    """A causal language model."""
    tokenizer: Any
    """Its tokenizer, with a chat template."""
    sampler: Sampler
    """How to sample."""
    design: str
    """Wording of the prompt, with ``{question}`` and ``{reference}``."""

    def compute_digest(self) -> str:
        """Hash everything that determines the texts, except the seed."""
        identity = {
            "weights": fingerprint_module(self.model),
            "template": getattr(self.tokenizer, "chat_template", None),
            "sampler": describe(self.sampler),
            "design": self.design,
        }
        return hash_identity(identity).hex()

    def write(self, questions: Sequence[Question], seed: int) -> list[ParsedRubric]:
        """Write one rubric per question.

        Args:
            questions: Questions with reference answers.
            seed: Seed of sampling.

        Returns:
            One entry per question: the rubric, or the reason why the text is not one.
        """
        prompts = [
            (Message(role="user", content=write_design_prompt(question, self.design)),)
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
        texts = [self.tokenizer.decode(c.ids, skip_special_tokens=True) for c in completions]
        return [
            parse_rubric(text, complete=completion.finished)
            for text, completion in zip(texts, completions, strict=True)
        ]


def write_rubrics(
    generator: Generator,
    questions: Sequence[Question],
    store: TextStore,
    *,
    batch_size: int = 16,
    asks: int = 1,
    seed: int = 0,
) -> WriteReport:
    """Write the missing rubrics batch by batch; each batch is stored before the next begins.

    An interrupted call can be repeated and continues where it stopped. A call after a finished one
    writes nothing.

    Args:
        generator: The model and its settings.
        questions: Questions with reference answers.
        store: Stores rubrics and refusals.
        batch_size: Questions per batch.
        asks: Maximum number of attempts per question, over all calls. A question is asked again if
            its text was refused.
        seed: Seed of sampling, combined with the questions of a batch and their earlier attempts.

    Raises:
        ValueError: ``batch_size`` or ``asks`` below 1, or a question without a reference answer.
    """
    if batch_size < 1 or asks < 1:
        raise ValueError(f"batch_size={batch_size}, asks={asks}: must be at least 1.")
    digest = generator.compute_digest()
    rows = {make_rubric_key(digest, question): question for question in questions}
    stored = sum(_is_finished(store.get(key), asks) for key in rows)
    written, refused = 0, Counter[str]()
    for _ in range(asks):
        todo = [key for key in rows if not _is_finished(store.get(key), asks)]
        for start in range(0, len(todo), batch_size):
            keys = todo[start : start + batch_size]
            old = [store.get(key) or {} for key in keys]
            parsed = generator.write([rows[key] for key in keys], _make_seed(seed, keys, old))
            entries: dict[str, Entry] = {}
            for key, before, one in zip(keys, old, parsed, strict=True):
                entries[key] = {
                    "generator": digest,
                    "question": rows[key].id,
                    "rubric": one.rubric and one.rubric.to_list(),
                    "refused": one.refused,
                    "asked": before.get("asked", 0) + 1,
                }
            store.put(entries)
            written += sum(one.rubric is not None for one in parsed)
            refused.update(one.refused for one in parsed if one.refused)
    return WriteReport(digest, len(rows), stored, written, dict(refused))


def _is_finished(entry: Entry | None, asks: int) -> bool:
    return entry is not None and (bool(entry.get("rubric")) or entry.get("asked", 1) >= asks)


def _make_seed(seed: int, keys: Sequence[str], old: Sequence[Entry]) -> int:
    times = [str(entry.get("asked", 0)) for entry in old]
    digest = hashlib.sha256("\0".join([str(seed), *keys, *times]).encode()).digest()
    return int.from_bytes(digest[:7], "big")
