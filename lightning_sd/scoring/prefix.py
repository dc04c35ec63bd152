"""Shared prompts: each distinct prompt is encoded once, with gradient, for all its completions.

The prompt's keys and values are repeated for its completions, which then attend to them as decoding
does. Autograd adds up the completions' gradients at the repeated entries, so the gradient is that
of the plain layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.prompts import media_inputs
from lightning_sd.rollout.cache import cache_argument, left_pad, new_cache
from lightning_sd.scoring.layout import Ids


def shared_prefix_hidden(
    backbone: nn.Module,
    config: Any,
    prompts: Sequence[Ids],
    index: Sequence[int],
    completions: Sequence[Ids],
) -> Tensor:
    """Hidden states that predict each completion token, prompts encoded once.

    Args:
        backbone: A transformers decoder with a key-value cache.
        config: The model's configuration.
        prompts: The distinct prompts.
        index: Which prompt each row continues.
        completions: One a row, not empty.

    Returns:
        ``[sum(lengths), hidden]``, rows one after another.
    """
    device = next(backbone.parameters()).device
    ids, mask, positions = left_pad(prompts, device)
    cache = new_cache(config)
    name = cache_argument(backbone)
    first = backbone(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        **media_inputs(prompts, device),
        **{name: cache},
    ).last_hidden_state[:, -1]
    rows = torch.tensor(list(index), device=device)
    cache.batch_select_indices(rows)
    lengths = torch.tensor([len(completion) for completion in completions], device=device)
    first = first[rows].unsqueeze(1)
    longest = int(lengths.max())
    if longest > 1:
        later = torch.zeros(len(completions), longest - 1, dtype=torch.long)
        for row, completion in enumerate(completions):
            later[row, : len(completion) - 1] = torch.tensor(list(completion[:-1]))
        steps = torch.arange(longest - 1, device=device)
        prompt_lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)[rows]
        full = None
        if mask is not None:
            full = torch.cat([mask[rows], mask.new_ones(len(completions), longest - 1)], 1)
        rest = backbone(
            input_ids=later.to(device),
            attention_mask=full,
            position_ids=prompt_lengths.unsqueeze(1) + steps,
            use_cache=True,
            **{name: cache},
        ).last_hidden_state
        first = torch.cat([first, rest], 1)
    valid = torch.arange(longest, device=device) < lengths.unsqueeze(1)
    packed: Tensor = first[valid]
    return packed
