"""The output head, separate from the model so that it can be applied chunk by chunk."""

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
        """Compute logits ``[tokens, vocab]`` from hidden states ``[tokens, hidden]``."""
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def list_trainable(self) -> list[Tensor]:
        """Return the tensors that require a gradient."""
        return [t for t in (self.weight, self.bias) if t is not None and t.requires_grad]


def get_head(linear: nn.Linear, config: Any) -> Head:
    """Build the head of a transformers model.

    Reads the factor of Cohere's logits, the divisor of Granite's, and the cap of Gemma's from the
    configuration.

    Args:
        linear: The model's output embeddings.
        config: The model's configuration.

    Returns:
        The head. Without gradient its tensors are detached, so that a teacher's head keeps the
        teacher's weights after they have been swapped out of the model.
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
