"""Equal numbers of forward passes on every rank, for a model that is gathered layer by layer.

Each forward pass gathers each layer once, which takes every rank. Ranks decode for different
numbers of steps and score different numbers of batches. So every pass is announced, and a rank that
has finished makes passes over one token until no rank works.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EqualPasses:
    """Counts the forward passes of a decoder, and makes up for those of other ranks.

    Args:
        decoder: The decoder whose layers are gathered in each pass.
    """

    def __init__(self, decoder: nn.Module) -> None:
        self.decoder = decoder
        self._padding = False
        decoder.register_forward_pre_hook(self._announce)

    def pad(self) -> Tensor | None:
        """Make passes over one token until no rank works; every rank must call it.

        Returns:
            A zero whose gradient reaches every pass, so that backward passes are equal as well;
            None without such passes, or without gradients.
        """
        zero = None
        self._padding = True
        try:
            while self._count_working(0):
                hidden = self._run_one_token()
                if hidden.requires_grad:
                    zero = hidden.sum() * 0.0 + (0.0 if zero is None else zero)
        finally:
            self._padding = False
        return zero

    def _announce(self, *_: object) -> None:
        if not self._padding:
            self._sum_over_ranks(1)

    def _count_working(self, own: int) -> int:
        return int(self._sum_over_ranks(own))

    def _sum_over_ranks(self, own: int) -> Tensor:
        total = torch.tensor(own, device=next(self.decoder.parameters()).device)
        torch.distributed.all_reduce(total)
        return total

    def _run_one_token(self) -> Tensor:
        token = torch.zeros(1, 1, dtype=torch.long, device=next(self.decoder.parameters()).device)
        hidden: Tensor = self.decoder(input_ids=token, use_cache=False).last_hidden_state
        return hidden
