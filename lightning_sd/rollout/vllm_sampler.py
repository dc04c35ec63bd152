"""Sample with a vLLM engine that follows the student's weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_sd.rollout.base import Completion
from lightning_sd.rollout.engine_sampler import EngineSampler
from lightning_sd.rollout.seeding import draw_requests
from lightning_sd.rollout.vllm_engine import VLLMEngine, get_engine, import_vllm


@dataclass(frozen=True)
class VLLMSampler(EngineSampler):
    """Samples with vLLM in this process, one engine per rank.

    Before each batch the engine gets the student's weights if they changed. Inside
    ``teacher.swap_in`` it gets the teacher's. Each completion is a request with a seed of its own,
    and vLLM's prefix cache shares their prompt.

    Run and tested on CPUs with vLLM 0.32. Not run on a GPU.

    Raises:
        ValueError: A setting is out of range, or log-probabilities would be those of a truncated
            distribution.
    """

    sleep_level: int | None = None
    """vLLM's sleep level between batches, which frees device memory for training: 1 moves the
    weights to host memory, 2 drops them; none: the engine stays awake. vLLM on a CPU ignores it."""
    swap_adapters: bool = False
    """With LoRA, hand over the adapter alone; vLLM applies it beside the base weights, which are
    sent once. False: the merged weights are sent after each step."""
    engine: dict[str, Any] | None = None
    """Further arguments of ``vllm.LLM``, such as ``{"gpu_memory_utilization": 0.3}``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature not in (0.0, 1.0) and (self.top_p < 1 or self.top_k):
            raise ValueError(
                f"temperature={self.temperature} with top_p={self.top_p}, top_k={self.top_k}: vLLM "
                "reports log-probabilities either untempered or truncated. Set temperature to 1, "
                "or top_p to 1 and top_k to 0."
            )
        if self.sleep_level not in (None, 1, 2):
            raise ValueError(f"sleep_level={self.sleep_level}: choose 1, 2 or none.")

    def sync(self, model: nn.Module) -> bool:
        """Give the engine the model's weights if it has others; see :class:`VLLMEngine`."""
        return self._get_engine(model).sync(model)

    def get_lock(self, model: nn.Module) -> threading.Lock:
        """Return the lock of the model's engine, which is started at the first call.

        Raises:
            ImportError: vLLM is not installed.
            ValueError: The engine cannot serve the model.
        """
        return self._get_engine(model).lock

    def draw(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int,
        stop_ids: Sequence[int],
        generator: torch.Generator,
    ) -> list[Completion]:
        """Sample with the weights that the engine has; see :meth:`EngineSampler.draw`."""
        engine = self._get_engine(model)
        requests = draw_requests(prompts, samples, generator)
        params = [self._make_params(seed, stop_ids) for _, seed in requests]
        outputs = engine.generate([prompts[i] for i, _ in requests], params)
        if self.sleep_level is not None:
            engine.sleep(self.sleep_level)
        return [
            Completion(
                prompt=i,
                ids=tuple(output.token_ids),
                logprobs=tuple(
                    float(entry[token].logprob)
                    for token, entry in zip(output.token_ids, output.logprobs, strict=True)
                ),
                finished=output.finish_reason == "stop",
            )
            for (i, _), output in zip(requests, outputs, strict=True)
        ]

    def _get_engine(self, model: nn.Module) -> VLLMEngine:
        return get_engine(model, self._list_settings(), swap_adapters=self.swap_adapters)

    def _make_params(self, seed: int, stop_ids: Sequence[int]) -> Any:
        return import_vllm().SamplingParams(
            seed=None if self.temperature == 0 else seed,
            max_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            logprobs=0,
            detokenize=False,
            stop_token_ids=[*stop_ids, *self.stop_token_ids],
            ignore_eos=True,
        )

    def _list_settings(self) -> dict[str, Any]:
        # Truncation must not change the reported log-probabilities; at temperature 1 the raw ones
        # are those of the policy. Greedy decoding reports those at temperature 1.
        raw = self.temperature in (0.0, 1.0)
        mode = {"logprobs_mode": "raw_logprobs" if raw else "processed_logprobs"}
        return {**mode, **(self.engine or {})}
