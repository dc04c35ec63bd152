"""The output head, separate from the model so that it can be applied chunk by chunk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.configs import iterate_configs
from lightning_sd.models.probing import agree

FACTOR = re.compile(r"scal|multiplier|mup")
CAP = re.compile(r"cap")


@dataclass(frozen=True)
class Scaling:
    """The map from a head's outputs to logits: ``softcap(scale * outputs)``."""

    scale: float = 1.0
    softcap: float | None = None

    def apply(self, outputs: Tensor) -> Tensor:
        """Scale and cap outputs of any shape."""
        logits = outputs if self.scale == 1.0 else outputs * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


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
        outputs = nn.functional.linear(hidden, self.weight, self.bias)
        return Scaling(self.scale, self.softcap).apply(outputs)

    def list_trainable(self) -> list[Tensor]:
        """Return the tensors that require a gradient."""
        return [t for t in (self.weight, self.bias) if t is not None and t.requires_grad]


def get_head(linear: nn.Linear, scaling: Scaling, *, copy: bool = False) -> Head:
    """Build the head of a transformers model.

    Args:
        linear: The model's output embeddings.
        scaling: What the model does to their output.
        copy: Copy tensors that need no gradient: FSDP2 reuses the buffer in which it gathers.

    Returns:
        The head. Without gradient its tensors are detached, so that a teacher's head keeps the
        teacher's weights after they have been swapped out of the model.
    """
    wanted = torch.is_grad_enabled()
    weight: Tensor = linear.weight
    bias: Tensor | None = linear.bias
    if not (wanted and weight.requires_grad):
        weight = weight.detach().clone() if copy else weight.detach()
    if bias is not None and not (wanted and bias.requires_grad):
        bias = bias.detach().clone() if copy else bias.detach()
    return Head(weight, bias, scaling.scale, scaling.softcap)


def find_scaling(
    outputs: Tensor, logits: Tensor, config: Any, *, coarse: bool = False
) -> Scaling | None:
    """Find the factor and the cap that turn a head's outputs into the model's logits.

    Architectures store them under different names (Cohere multiplies, Granite divides, Gemma caps,
    some in a nested text configuration), so all numbers with a fitting name are tried. A factor
    that is computed from other settings, as in MiniCPM, is measured.

    Args:
        outputs: ``[tokens, vocab]``, the linear map of the last hidden states.
        logits: ``[tokens, vocab]``, the model's logits.
        config: The model's configuration.
        coarse: Whether the model computes in low precision.

    Returns:
        The scaling, or None if no factor and cap give the logits.
    """
    wide, expected = outputs.double(), logits.double()
    factors = [1.0, *(f for v in _list_numbers(config, FACTOR) for f in (v, 1 / v))]
    caps = [None, *_list_numbers(config, CAP)]
    measured = float((wide * expected).sum() / (wide * wide).sum())
    candidates = [Scaling(f, cap) for cap in caps for f in factors] + [Scaling(measured, None)]
    errors = [float((c.apply(wide) - expected).abs().nan_to_num().max()) for c in candidates]
    # A cap hardly shows in small logits, so the best candidate counts and not the first that fits.
    best = next(c for c, e in zip(candidates, errors, strict=True) if e <= 2 * min(errors))
    same = agree(best.apply(wide).to(logits.dtype), logits, coarse=coarse)
    return best if same else None


def _list_numbers(config: Any, name: re.Pattern[str]) -> list[float]:
    """List the positive numbers in a configuration that have a fitting name."""
    values = (item for part in iterate_configs(config) for item in vars(part).items())
    return [
        float(value)
        for key, value in values
        if name.search(key) and isinstance(value, (int, float)) and value > 0
    ]
