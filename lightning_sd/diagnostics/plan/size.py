"""The sizes of a model, read from its configuration on the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sd.models.cache import get_causal_lm
from lightning_sd.models.probing import eval_mode

LENGTHS = (64, 128, 192)
"""Row lengths at which the values saved for the backward pass are counted."""


@dataclass(frozen=True)
class ModelSize:
    """What the arithmetic of a plan reads of a model. Sizes in memory are in bytes."""

    weights: int
    """All parameters."""
    trained: int
    """Trainable parameters, and with them gradients and each moment of Adam."""
    body: float
    """Weights by which each token is multiplied, without the head: a count. Of experts, those that
    a token uses."""
    head: int
    """Weights of the head: a count."""
    trained_body: float
    """Trainable weights of the body: a count."""
    trains_head: bool
    held: int
    """Embeddings, head and norms, which FSDP2 does not gather layer by layer."""
    layers: int
    hidden: int
    vocab: int
    attention: int
    """Sum over layers of heads times head size: the products of a pair of tokens."""
    cache: float
    """Keys and values of a token."""
    saved: float
    """Values saved for the backward pass of a token."""
    layer: float
    """Values of a token that one layer computes on its way."""
    item: int
    """One value in the dtype of the weights."""
    largest: int
    """The largest trainable parameter."""


def measure_size(model: nn.Module, *, checkpointing: bool) -> ModelSize:
    """Measure a model that is on the meta device, or any other.

    Args:
        model: A transformers causal language model, with LoRA adapters or without.
        checkpointing: Whether activations are recomputed in the backward pass.
    """
    base: Any = get_causal_lm(model)
    config = base.config.get_text_config()
    head = base.get_output_embeddings().weight
    decoder = base.get_decoder()
    layers = next(module for module in decoder.children() if isinstance(module, nn.ModuleList))
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    item = head.element_size()
    saved = _count_saved(model, decoder)
    layer = saved / len(layers)
    if checkpointing:  # each layer keeps its input, and one layer at a time is computed again
        saved = config.hidden_size * item * len(layers) + layer
    return ModelSize(
        weights=sum(p.nbytes for p in model.parameters()),
        trained=sum(p.nbytes for p in model.parameters() if p.requires_grad),
        body=_count_body(layers, config, trained=False),
        head=head.numel(),
        trained_body=_count_body(layers, config, trained=True),
        trains_head=head.requires_grad,
        held=sum(p.nbytes for p in model.parameters()) - sum(p.nbytes for p in layers.parameters()),
        layers=len(layers),
        hidden=config.hidden_size,
        vocab=head.shape[0],
        attention=len(layers) * heads * head_size,
        cache=2.0 * len(layers) * shared * head_size * item,
        saved=saved,
        layer=layer,
        item=item,
        largest=max((p.nbytes for p in model.parameters() if p.requires_grad), default=0),
    )


def _count_body(layers: nn.Module, config: Any, *, trained: bool) -> float:
    """Count the weights of all layers that multiply a token; of experts, the share it uses."""
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    share = getattr(config, "num_experts_per_tok", 1) / experts if experts else 1.0
    return sum(
        p.numel() * (share if "experts" in name else 1.0)
        for name, p in layers.named_parameters()
        if p.ndim > 1 and (p.requires_grad or not trained)
    )


def _count_saved(model: nn.Module, decoder: Any) -> float:
    """Count the bytes per token that a forward pass saves for the backward pass.

    Attention on the meta device saves its weights, which grow with the square of the length;
    fast kernels do not. So the linear part of three lengths is taken.
    """
    first, second, third = (_run_decoder(model, decoder, length) for length in LENGTHS)
    curve = (third - 2 * second + first) / 2
    return (second - first - 3 * curve) / LENGTHS[0]


def _run_decoder(model: nn.Module, decoder: Any, length: int) -> float:
    device = next(model.parameters()).device
    row = torch.zeros(1, length, dtype=torch.long, device=device)
    # With a whole mask transformers reads no values, which tensors on the meta device have not.
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=device)
    # In train mode gradient checkpointing would hide what a layer computes on its way.
    with eval_mode(model), _record_saved(model) as sizes:
        decoder(input_ids=row, attention_mask=mask, use_cache=False)
    return float(sum(sizes.values()))


@contextmanager
def _record_saved(model: nn.Module) -> Iterator[dict[int, int]]:
    """Record the storages that are saved inside the context, without those of parameters."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    sizes: dict[int, int] = {}
    kept = []  # so that no storage is freed and its number used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept.append(tensor)
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes
