"""Samplers with an engine that has weights of its own, so it can work while the student trains."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import nn

from lightning_sd.models.limits import check_lengths
from lightning_sd.rollout.base import Completion
from lightning_sd.rollout.settings import SamplingSettings

Draw = Callable[[], list[Completion]]


class EngineSampler(SamplingSettings):
    """Samples in two parts: the engine takes the student's weights, then it draws with them."""

    @abstractmethod
    def sync(self, model: nn.Module) -> bool:
        """Give the engine the model's weights if it has others.

        Returns:
            Whether weights were handed over.
        """

    @abstractmethod
    def draw(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> list[Completion]:
        """Sample as :meth:`Sampler.sample` does, with the weights that the engine has.

        Args:
            model: Names the engine; its weights are not read.
            prompts: Token ids of each prompt.
            samples: Completions per prompt.
            stop_ids: Token ids that end a completion.
            generator: The only source of randomness.
        """

    @abstractmethod
    def get_lock(self, model: nn.Module) -> threading.Lock:
        """Return the lock of the engine, which serves one batch at a time."""

    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> list[Completion]:
        """Sample from each prompt; see :meth:`Sampler.sample`.

        Raises:
            ValueError: The engine cannot serve the model, or a prompt and its completion can be
                longer than the model allows.
        """
        draw = self.start(model, prompts, samples=samples, stop_ids=stop_ids, generator=generator)
        return draw()

    def start(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> Draw:
        """Give the engine the model's current weights, and return what samples with them.

        Args:
            model: The student.
            prompts: Token ids of each prompt.
            samples: Completions per prompt.
            stop_ids: Token ids that end a completion.
            generator: The only source of randomness.

        Returns:
            A function to call once, in any thread; the model may be trained meanwhile. The engine
            is reserved until it returns: other calls of ``start`` and ``sample`` wait.
        """
        check_lengths(model, prompts, self.max_new_tokens)
        lock = self.get_lock(model)
        lock.acquire()
        try:
            self.sync(model)
        except BaseException:
            lock.release()
            raise

        def draw() -> list[Completion]:
            try:
                return self.draw(
                    model, prompts, samples=samples, stop_ids=stop_ids, generator=generator
                )
            finally:
                lock.release()

        return draw
