"""Shared beginnings: each is encoded once, with gradient, for all rows that go on from it.

Its keys and values are repeated for these rows, which then attend to them as decoding does.
Autograd adds up the rows' gradients at the repeated entries, so the gradient is that of the plain
layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.cache import cache_argument, left_pad, new_cache
from lightning_sd.models.media import media_inputs
from lightning_sd.scoring.sharing import Shared


def shared_prefix_hidden(
    backbone: nn.Module, config: Any, shared: Shared, lengths: Sequence[int]
) -> Tensor:
    """Hidden states that predict each completion token, shared beginnings encoded once.

    Args:
        backbone: A transformers decoder with a key-value cache.
        config: The model's configuration.
        shared: The rows.
        lengths: Of the completions with which the rows end, in tokens.

    Returns:
        ``[sum(lengths), hidden]``, rows one after another.
    """
    device = next(backbone.parameters()).device
    ids, mask, positions = left_pad(shared.heads, device)
    cache = new_cache(config)
    name = cache_argument(backbone)
    first = backbone(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        **media_inputs(shared.heads, device),
        **{name: cache},
    ).last_hidden_state[:, -1]
    rows = torch.tensor(list(shared.index), device=device)
    cache.batch_select_indices(rows)
    found = first[rows].unsqueeze(1)
    tails = torch.tensor([len(tail) for tail in shared.tails], device=device)
    longest = int(tails.max())
    if longest > 1:
        later = torch.zeros(len(tails), longest - 1, dtype=torch.long)
        for row, tail in enumerate(shared.tails):
            later[row, : len(tail) - 1] = torch.tensor(list(tail[:-1]))
        steps = torch.arange(longest - 1, device=device)
        heads = torch.tensor([len(head) for head in shared.heads], device=device)[rows]
        full = None
        if mask is not None:
            full = torch.cat([mask[rows], mask.new_ones(len(tails), longest - 1)], 1)
        rest = backbone(
            input_ids=later.to(device),
            attention_mask=full,
            position_ids=heads.unsqueeze(1) + steps,
            use_cache=True,
            **{name: cache},
        ).last_hidden_state
        found = torch.cat([found, rest], 1)
    # Entry t predicts token t of the tail, and the completion is what stands at its end.
    places = torch.arange(longest, device=device)
    begins = tails - torch.tensor(list(lengths), device=device)
    packed: Tensor = found[(places >= begins[:, None]) & (places < tails[:, None])]
    return packed
