"""Completions that an engine draws before they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from torch import nn

from lightning_sd.rollout.base import Completion, Sampler
from lightning_sd.rollout.engine_sampler import EngineSampler
from lightning_sd.rollout.threads import start_worker


class Request(NamedTuple):
    """What determines a draw, except for the weights."""

    prompts: tuple[tuple[int, ...], ...]
    samples: int
    stop_ids: tuple[int, ...]
    seed: int


class Ahead(NamedTuple):
    """A draw in progress, or finished."""

    step: int
    """Number of optimizer steps behind the weights that sample."""
    completions: Future[list[Completion]]


class AheadSampler(Sampler):
    """Draws in a second thread, and hands the completions out when they are asked for.

    Args:
        sampler: Draws; its engine takes the weights when a draw starts.
    """

    def __init__(self, sampler: EngineSampler) -> None:
        self.sampler = sampler
        self.temperature = sampler.temperature
        self._worker = start_worker("rollouts")
        self._draws: dict[Request, Ahead] = {}

    def start(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
        step: int,
    ) -> int:
        """Start to draw for a later call of :meth:`sample`, unless it was started before.

        Args:
            model: The student, with the weights to sample with.
            prompts: Token ids of each prompt.
            samples: Completions per prompt.
            stop_ids: Token ids that end a completion.
            generator: The only source of randomness.
            step: Number of optimizer steps that the student has taken.

        Returns:
            The number of steps that the student had taken when this draw was started.
        """
        request = _describe(prompts, samples, stop_ids, generator)
        if request not in self._draws:
            draw = self.sampler.start(
                model, prompts, samples=samples, stop_ids=stop_ids, generator=generator
            )
            self._draws[request] = Ahead(step, self._worker.submit(draw))
        return self._draws[request].step

    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> list[Completion]:
        """Return what was drawn for this request; draw now what was not started."""
        ahead = self._draws.pop(_describe(prompts, samples, stop_ids, generator), None)
        if ahead is not None:
            return ahead.completions.result()
        return self.sampler.sample(
            model, prompts, samples=samples, stop_ids=stop_ids, generator=generator
        )

    def state_dict(self) -> list[Any]:
        """Return the draws, which are waited for, as plain values."""
        return [
            [tuple(request), ahead.step, [vars(c) for c in ahead.completions.result()]]
            for request, ahead in self._draws.items()
        ]

    def load_state_dict(self, state: Sequence[Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        for request, step, completions in state:
            future: Future[list[Completion]] = Future()
            future.set_result([Completion(**fields) for fields in completions])
            self._draws[Request(*request)] = Ahead(step, future)

    def close(self) -> None:
        """Wait for a draw in progress, and drop all."""
        self._worker.shutdown()
        self._draws.clear()


def _describe(
    prompts: Sequence[Sequence[int]],
    samples: int,
    stop_ids: Sequence[int],
    generator: torch.Generator,
) -> Request:
    rows = tuple(tuple(prompt) for prompt in prompts)
    return Request(rows, samples, tuple(stop_ids), generator.initial_seed())
