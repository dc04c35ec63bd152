"""Go on after an out-of-memory error with fewer rows at a time, and the same gradient."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_sd.models.sharding import gather_parameters, gathers_layers, is_sharded
from lightning_sd.rollout import Completion, Sampler
from lightning_sd.scoring import Scorer, Scores
from lightning_sd.scoring.layout import Ids

Work = Literal["sampling", "scoring"]
T = TypeVar("T")


@dataclass
class MemoryLimits:
    """Most rows at a time, learned from out-of-memory errors; None: all fitted so far."""

    sampling: int | None = None
    """Completions that are sampled together."""
    scoring: int | None = None
    """Completions that are scored together."""

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
                size = rows if limit is None else min(limit, rows)
                if size < 2:
                    raise torch.OutOfMemoryError(
                        f"Out of memory in {work} with a single row. Shorten max_new_tokens or the "
                        "context's max_prompt_tokens, or use `lora` or `quantization`. "
                        f"({error})"
                    ) from error
            # Outside of `except`: the error's traceback holds the tensors of the failed attempt.
            setattr(self, work, -(-size // 2))
            _release_memory()
            warnings.warn(
                f"Out of memory in {work} of {size} rows: from now on at most {-(-size // 2)} at a "
                "time. The gradient stays the same, a sum over parts; steps take longer. Lower "
                "batch_size or samples to avoid it.",
                stacklevel=2,
            )


class MemorySafeScorer(Scorer):
    """A scorer that splits its rows after an out-of-memory error.

    With gradients each part is computed again in the backward pass, so that the activations of one
    part are held at a time.

    Args:
        model: See :class:`~lightning_sd.scoring.Scorer`.
        limits: What was learned so far; updated on an error.
    """

    def __init__(self, model: nn.Module, limits: MemoryLimits) -> None:
        super().__init__(model)
        self.limits = limits
        if is_sharded(model):
            with gather_parameters(model):
                self.prepare()  # its passes are without gradients, unlike those of training

    def score(self, prompts: Sequence[Ids], completions: Sequence[Ids]) -> Scores:
        """Score completions; see :meth:`Scorer.score`.

        A model that is gathered layer by layer gets no second attempt: other ranks would wait for
        the passes of the first.
        """
        if gathers_layers(self.model):
            return super().score(prompts, completions)

        def attempt(limit: int | None) -> Scores:
            if limit is None or limit >= len(prompts):
                return super(MemorySafeScorer, self).score(prompts, completions)
            return self._score_in_parts(prompts, completions, limit)

        return self.limits.run("scoring", len(prompts), attempt)

    def _score_in_parts(
        self, prompts: Sequence[Ids], completions: Sequence[Ids], limit: int
    ) -> Scores:
        # Its device tells `checkpoint` which random state to restore.
        marker = torch.empty(0, device=next(self.model.parameters()).device)
        heads = []

        def score(_: Tensor, rows: slice) -> Tensor:
            scores = super(MemorySafeScorer, self).score(prompts[rows], completions[rows])
            heads.append(scores.head)
            return scores.hidden

        with torch.no_grad():
            score(marker, slice(0, 1))  # the first call probes the model, which is not repeated
        heads.clear()
        hidden = []
        for first in range(0, len(prompts), limit):
            rows = slice(first, first + limit)
            if torch.is_grad_enabled():
                hidden.append(checkpoint(score, marker, rows, use_reentrant=False))
            else:
                hidden.append(score(marker, rows))
        return Scores(torch.cat(hidden), heads[0])


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


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
