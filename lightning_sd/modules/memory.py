"""Go on after an out-of-memory error with fewer rows at a time, and the same gradient."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import nn

from lightning_sd.models.sharding import gathers_layers
from lightning_sd.rollout import Completion, Sampler

Work = Literal["sampling", "scoring"]
T = TypeVar("T")


@dataclass
class MemoryLimits:
    """Most rows at a time, learned from out-of-memory errors; None: all fitted so far."""

    sampling: int | None = None
    """Completions that are sampled together."""
    scoring: int | None = None
    """Completions that are scored, and taken through the backward pass, together."""

    def run(self, work: Work, rows: int, attempt: Callable[[int | None], T]) -> T:
        """Run work, with half as many rows at a time after each out-of-memory error.

        Args:
            work: Which limit applies.
            rows: Number of rows.
            attempt: Does the whole work with at most that many rows at a time; None: all at once.
                It must be repeatable, because it is called again after an error.

        Raises:
            torch.OutOfMemoryError: A single row does not fit.
        """
        while True:
            limit: int | None = getattr(self, work)
            try:
                return attempt(limit)
            except torch.OutOfMemoryError as error:
                reason = str(error)
            # Outside of `except`: the error's traceback holds the tensors of the failed attempt.
            self.halve(work, rows if limit is None else min(limit, rows), reason)

    def halve(self, work: Work, rows: int, reason: str, place: str | None = None) -> None:
        """Lower a limit after an out-of-memory error, free memory, and say so.

        Args:
            work: Which limit.
            rows: Number of rows that did not fit.
            reason: The error's message.
            place: Where memory ran out, for the message. Default: the work.

        Raises:
            torch.OutOfMemoryError: It was a single row.
        """
        place = place or work
        if rows < 2:
            raise torch.OutOfMemoryError(
                f"Out of memory in {place} with a single row. Shorten max_new_tokens or the "
                "context's max_prompt_tokens, or use `lora` or `quantization`. "
                f"({reason})"
            )
        half = -(-rows // 2)
        setattr(self, work, half)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(
            f"Out of memory in {place} of {rows} rows: from now on at most {half} at a time. The "
            "gradient stays the same, a sum over parts; steps take longer. Lower batch_size or "
            "samples to avoid it.",
            stacklevel=2,
        )


def sample_within_memory(
    sampler: Sampler,
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    samples: int,
    stop_ids: Sequence[int],
    make_generator: Callable[[str], torch.Generator],
    limits: MemoryLimits,
) -> list[Completion]:
    """Sample, with fewer completions at a time after an out-of-memory error.

    Args:
        sampler: How to sample.
        model: The model to sample from.
        prompts: Token ids of each prompt.
        samples: Completions per prompt.
        stop_ids: Tokens that end a completion.
        make_generator: Makes the random generator of a part from its name; the first part, which is
            usually the only one, has the name ``""``.
        limits: What was learned so far; updated on an error.

    Returns:
        ``samples`` completions of prompt 0, then of prompt 1, and so on.
    """

    def attempt(limit: int | None) -> list[Completion]:
        completions: list[Completion] = []
        for part, (first, end, number) in enumerate(_split(len(prompts), samples, limit)):
            drawn = sampler.sample(
                model,
                prompts[first:end],
                samples=number,
                stop_ids=stop_ids,
                generator=make_generator(f"#{part}" if part else ""),
            )
            completions += [replace(c, prompt=c.prompt + first) for c in drawn]
        return completions

    if gathers_layers(model):
        return attempt(None)
    return limits.run("sampling", len(prompts) * samples, attempt)


def _split(prompts: int, samples: int, limit: int | None) -> list[tuple[int, int, int]]:
    """Split prompts, or else the samples of each: first prompt, end, and samples per part.

    Example:
        >>> _split(3, 4, None), _split(3, 4, 8), _split(1, 4, 3)
        ([(0, 3, 4)], [(0, 2, 4), (2, 3, 4)], [(0, 1, 3), (0, 1, 1)])
    """
    if limit is None or limit >= prompts * samples:
        return [(0, prompts, samples)]
    if limit >= samples:
        step = limit // samples
        return [(i, min(i + step, prompts), samples) for i in range(0, prompts, step)]
    parts = [min(limit, samples - drawn) for drawn in range(0, samples, limit)]
    return [(i, i + 1, part) for i in range(prompts) for part in parts]
