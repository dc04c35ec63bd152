"""Encode each shared prefix once, with gradient, for all rows that begin with it.

The keys and values of a prefix are repeated for its rows, which attend to them as in decoding.
Autograd sums the rows' gradients at the repeated entries, so that the gradient equals that of whole
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.cache import get_cache_argument, left_pad, make_cache
from lightning_sd.models.media import collect_media_inputs
from lightning_sd.scoring.sharing import SharedRows


def compute_shared_hidden(
    backbone: nn.Module, config: Any, shared: SharedRows, lengths: Sequence[int]
) -> Tensor:
    """Compute the hidden states that predict completion tokens, encoding shared prefixes once.

    Args:
        backbone: A transformers decoder with a key-value cache.
        config: The model's configuration.
        shared: The rows, split into prefixes and tails.
        lengths: Length of each row's completion, in tokens.

    Returns:
        ``[sum(lengths), hidden]``, rows one after another.
    """
    device = next(backbone.parameters()).device
    ids, mask, positions = left_pad(shared.prefixes, device)
    cache = make_cache(config)
    name = get_cache_argument(backbone)
    first = backbone(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        **collect_media_inputs(shared.prefixes, device),
        **{name: cache},
    ).last_hidden_state[:, -1]
    rows = torch.tensor(list(shared.index), device=device)
    cache.batch_select_indices(rows)
    hidden = first[rows].unsqueeze(1)
    tails = torch.tensor([len(tail) for tail in shared.tails], device=device)
    longest = int(tails.max())
    if longest > 1:
        later = torch.zeros(len(tails), longest - 1, dtype=torch.long)
        for row, tail in enumerate(shared.tails):
            later[row, : len(tail) - 1] = torch.tensor(list(tail[:-1]))
        steps = torch.arange(longest - 1, device=device)
        starts = torch.tensor([len(p) for p in shared.prefixes], device=device)[rows]
        full = None
        if mask is not None:
            full = torch.cat([mask[rows], mask.new_ones(len(tails), longest - 1)], 1)
        rest = backbone(
            input_ids=later.to(device),
            attention_mask=full,
            position_ids=starts.unsqueeze(1) + steps,
            use_cache=True,
            **{name: cache},
        ).last_hidden_state
        hidden = torch.cat([hidden, rest], 1)
    # Entry t predicts token t of the tail; the completion is the end of the tail.
    places = torch.arange(longest, device=device)
    begins = tails - torch.tensor(list(lengths), device=device)
    packed: Tensor = hidden[(places >= begins[:, None]) & (places < tails[:, None])]
    return packed
