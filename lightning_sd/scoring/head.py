"""The output head, held apart from the model so that it can be applied chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Head:
    """The map from hidden states to logits: ``softcap(scale * (h W^T + b))``."""

    weight: Tensor
    """``[vocab, hidden]``."""
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """``[tokens, hidden]`` to ``[tokens, vocab]``."""
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def trainable(self) -> list[Tensor]:
        """Those of its tensors that want a gradient."""
        return [t for t in (self.weight, self.bias) if t is not None and t.requires_grad]


def head_of(linear: nn.Linear, config: Any) -> Head:
    """The head of a transformers model.

    Cohere multiplies the logits, Granite divides them, Gemma caps them.

    Args:
        linear: The model's output embeddings.
        config: The model's configuration.

    Returns:
        The head; its tensors are detached when no gradient is wanted, so that it still gives the
        teacher's logits after the teacher's weights have been swapped out again.
    """
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)
    wanted = torch.is_grad_enabled()
    weight: Tensor = linear.weight
    bias: Tensor | None = linear.bias
    if not (wanted and weight.requires_grad):
        weight = weight.detach()
    if bias is not None and not (wanted and bias.requires_grad):
        bias = bias.detach()
    return Head(weight, bias, scale, getattr(config, "final_logit_softcapping", None))
