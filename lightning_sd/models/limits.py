"""Find the longest row of a model, and the length at which the meaning of its positions changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.configs import iterate_configs

LENGTH_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
)


def find_max_length(model: nn.Module) -> int | None:
    """Return the most tokens that a row may have; None if the configuration sets no limit.

    A scaled rotary embedding extends ``max_position_embeddings`` by its factor. Dynamic scaling
    does not: beyond ``max_position_embeddings`` its frequencies depend on the rows seen before.
    RoBERTa and its kin number positions from the padding index on.
    """
    for config in iterate_configs(getattr(get_causal_lm(model), "config", None)):
        if getattr(config, "alibi", False):
            return None
        for name in LENGTH_NAMES:
            length = getattr(config, name, None)
            if isinstance(length, int) and length > 0:
                extended = max([length, *_list_extended_lengths(config)])
                return extended - _count_unused_positions(model)
    return None


def find_rope_switch(model: nn.Module) -> int | None:
    """Return the length above which LongRoPE rotates all positions differently; None without it."""
    for config in iterate_configs(getattr(get_causal_lm(model), "config", None)):
        for rope in _iterate_rope(config):
            if _get_rope_type(rope) in ("longrope", "su"):
                length = rope.get("original_max_position_embeddings") or getattr(
                    config, "original_max_position_embeddings", None
                )
                return int(length or config.max_position_embeddings)
    return None


def check_lengths(model: nn.Module, prompts: Sequence[Sequence[int]], new_tokens: int) -> None:
    """Refuse rows that are longer than the model allows.

    Args:
        model: The model.
        prompts: Token ids of each prompt.
        new_tokens: Most tokens that will follow each prompt.

    Raises:
        ValueError: A row is longer than the model's limit, or LongRoPE would change the meaning of
            its positions while it is sampled.
    """
    longest = max(map(len, prompts), default=0)
    limit, switch = find_max_length(model), find_rope_switch(model)
    name = type(get_causal_lm(model)).__name__
    if limit is not None and longest + new_tokens > limit:
        raise ValueError(
            f"{name} takes at most {limit} tokens (max_position_embeddings), but the longest "
            f"prompt has {longest} and max_new_tokens={new_tokens}, together "
            f"{longest + new_tokens}: shorten the prompts or lower max_new_tokens."
        )
    if switch is None:
        return
    crossing = [len(p) for p in prompts if len(p) <= switch < len(p) + new_tokens]
    if crossing:
        raise ValueError(
            f"{name} uses LongRoPE, which rotates all positions differently in rows of more than "
            f"{switch} tokens, but a prompt has {max(crossing)} and max_new_tokens={new_tokens}, "
            f"together {max(crossing) + new_tokens}: stay on one side of {switch}."
        )


def _iterate_rope(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the rotary settings of a configuration; some have one per layer type."""
    for name in ("rope_parameters", "rope_scaling"):
        settings = getattr(config, name, None)
        if isinstance(settings, dict):
            yield settings
            yield from (value for value in settings.values() if isinstance(value, dict))


def _get_rope_type(rope: dict[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _list_extended_lengths(config: Any) -> list[int]:
    lengths = []
    for rope in _iterate_rope(config):
        original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
        if _get_rope_type(rope) in ("yarn", "linear", "llama3") and factor:
            lengths.append(int((original or config.max_position_embeddings) * factor))
    return lengths


def _count_unused_positions(model: nn.Module) -> int:
    """Return the number of positions up to the padding index of a table of positions."""
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return int(module.padding_idx) + 1
    return 0
