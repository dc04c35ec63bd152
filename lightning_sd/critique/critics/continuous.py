"""Greedy decoding by transformers' continuous batching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from lightning_sd.rollout import Completion


def check_continuous_batching(settings: Mapping[str, Any]) -> None:
    """Make sure that transformers knows continuous batching and these settings of it.

    Raises:
        ImportError: This version of transformers has no ``ContinuousBatchingConfig``.
        ValueError: A setting that it does not know.
    """
    known = {field.name for field in fields(_config_class())}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"continuous_batching_config: transformers knows no {unknown}; it knows "
            f"{sorted(known)}."
        )


def write_continuously(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    settings: Mapping[str, Any],
) -> Iterator[Completion]:
    """Decode many prompts greedily; when one ends, the next takes its place.

    Prompts share the cache of what they begin with. The paged cache lives as long as the iterator.

    Args:
        model: A causal language model of transformers.
        prompts: Token ids; any number, for only so many are decoded at a time as the cache holds.
        max_new_tokens: Longest completion.
        stop_ids: Each of these ends a completion.
        settings: Of ``transformers.ContinuousBatchingConfig``. What is left out transformers
            chooses, except that on a CPU, where it would take 60 percent of the memory, the cache
            holds what these prompts need.

    Yields:
        One completion a prompt, without log-probabilities, in the order in which they end.

    Raises:
        ValueError: The model or its attention cannot do it.
        RuntimeError: transformers gave up on a prompt, such as one that the cache cannot hold.
    """
    if not prompts:
        return
    manager = _manager(model, prompts, max_new_tokens, stop_ids, settings)
    manager.start()
    waiting: dict[str, int] = {}
    try:
        names = manager.add_requests([list(ids) for ids in prompts], max_new_tokens=max_new_tokens)
        waiting = {name: i for i, name in enumerate(names)}
        while waiting:
            result = manager.get_result(timeout=1.0)
            if result is None:
                if not manager.is_running():
                    raise RuntimeError("Continuous batching ended early; see transformers' log.")
                continue
            prompt = waiting.pop(result.request_id)
            if result.error is not None:
                raise RuntimeError(
                    f"Continuous batching failed on a prompt of {len(prompts[prompt])} tokens: "
                    f"{result.error}"
                )
            ids = tuple(result.generated_tokens)
            yield Completion(prompt, ids, (), finished=bool(ids) and ids[-1] in stop_ids)
    finally:
        for name in waiting:  # nobody wants them any more
            manager.cancel_request(name)
        manager.stop(block=True)
        manager.destroy()


def _manager(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    settings: Mapping[str, Any],
) -> Any:
    from transformers import GenerationConfig

    if not hasattr(model, "init_continuous_batching"):
        raise ValueError(
            f"continuous_batching_config: {type(model).__name__} cannot batch continuously, only "
            "causal language models of transformers can. Leave the option out."
        )
    config = _config_class()(**settings)
    if model.device.type == "cpu" and config.num_blocks is None:
        lengths = [len(ids) + max_new_tokens for ids in prompts]
        config.num_blocks = 1 + sum(-(-length // config.page_size) for length in lengths)
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stop_ids)
    )
    cuda = [model.device] if model.device.type == "cuda" else []
    # It seeds all of torch anew, which would change what a training run draws next.
    with torch.random.fork_rng(cuda), torch.autocast(model.device.type, enabled=False):
        manager = model.init_continuous_batching(
            generation_config=greedy, continuous_batching_config=config
        )
        manager.warmup()
    return manager


def _config_class() -> Any:
    try:
        from transformers import ContinuousBatchingConfig
    except ImportError as error:
        raise ImportError(
            "continuous_batching_config needs a transformers that has ContinuousBatchingConfig "
            "(5.24 has): pip install -U transformers, or leave the option out."
        ) from error
    return ContinuousBatchingConfig
