"""Greedy decoding with transformers' continuous batching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch

from lightning_sd.rollout import Completion


def check_continuous_batching(settings: Mapping[str, Any]) -> None:
    """Check that the installed transformers knows continuous batching and these settings.

    Raises:
        ImportError: This version of transformers has no ``ContinuousBatchingConfig``.
        ValueError: ``ContinuousBatchingConfig`` does not have one of the settings.
    """
    known = {field.name for field in fields(_get_config_class())}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(
            f"continuous_batching_config: transformers does not know {unknown}. Choose among "
            f"{sorted(known)}."
        )


def decode_continuously(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    settings: Mapping[str, Any],
) -> Iterator[Completion]:
    """Decode many prompts greedily; when one completion ends, the next prompt takes its place.

    Prompts with a common beginning share its cache. The paged cache is freed when the iterator
    ends.

    Args:
        model: A causal language model of transformers.
        prompts: Token ids per prompt. Any number: only as many are decoded at a time as the cache
            holds.
        max_new_tokens: Maximum number of tokens per completion.
        stop_ids: Token ids that end a completion.
        settings: Fields of ``transformers.ContinuousBatchingConfig``. For missing fields
            transformers chooses, with one exception: on a CPU, where it would reserve 60 percent of
            the memory, the cache is sized for these prompts.

    Yields:
        One completion per prompt, without log-probabilities, in the order in which they end.

    Raises:
        ValueError: The model or its attention does not support continuous batching.
        RuntimeError: transformers gave up on a prompt, for example because the cache cannot hold
            it.
    """
    if not prompts:
        return
    manager = _create_manager(model, prompts, max_new_tokens, stop_ids, settings)
    manager.start()
    pending: dict[str, int] = {}
    try:
        names = manager.add_requests([list(ids) for ids in prompts], max_new_tokens=max_new_tokens)
        pending = {name: i for i, name in enumerate(names)}
        while pending:
            result = _wait_for_result(manager)
            prompt = pending.pop(result.request_id)
            if result.error is not None:
                raise RuntimeError(
                    f"Continuous batching failed on a prompt of {len(prompts[prompt])} tokens: "
                    f"{result.error}"
                )
            ids = tuple(result.generated_tokens)
            yield Completion(prompt, ids, (), finished=bool(ids) and ids[-1] in stop_ids)
    finally:
        for name in pending:
            manager.cancel_request(name)
        manager.stop(block=True)
        manager.destroy()


def _wait_for_result(manager: Any) -> Any:
    while True:
        result = manager.get_result(timeout=1.0)
        if result is not None:
            return result
        if not manager.is_running():
            raise RuntimeError("Continuous batching ended early; see transformers' log.")


def _create_manager(
    model: Any,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    settings: Mapping[str, Any],
) -> Any:
    from transformers import GenerationConfig

    if not hasattr(model, "init_continuous_batching"):
        raise ValueError(
            f"continuous_batching_config: {type(model).__name__} does not support continuous "
            "batching; only causal language models of transformers do. Leave the option out."
        )
    config = _get_config_class()(**settings)
    if model.device.type == "cpu" and config.num_blocks is None:
        lengths = [len(ids) + max_new_tokens for ids in prompts]
        config.num_blocks = 1 + sum(-(-length // config.page_size) for length in lengths)
    greedy = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=list(stop_ids)
    )
    cuda = [model.device] if model.device.type == "cuda" else []
    # transformers reseeds all of torch here, which would change the training run's next samples.
    with torch.random.fork_rng(cuda), torch.autocast(model.device.type, enabled=False):
        manager = model.init_continuous_batching(
            generation_config=greedy, continuous_batching_config=config
        )
        manager.warmup()
    return manager


def _get_config_class() -> Any:
    try:
        from transformers import ContinuousBatchingConfig
    except ImportError as error:
        raise ImportError(
            "continuous_batching_config: the installed transformers has no "
            "ContinuousBatchingConfig (5.24 has it). Run pip install -U transformers, or leave the "
            "option out."
        ) from error
    return ContinuousBatchingConfig
